"""Run TFLite models with LiteRT (`ai-edge-litert`), or with its predecessor `tflite-runtime` where that is installed.

`tflite-runtime` 2.14 was built for NumPy 1: beside NumPy 2 it can be imported, but no interpreter can be made. The
error says so; only making an interpreter proves that the runtime works.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.backend import TensorInfo

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter


class TfliteBackend:
    """One LiteRT interpreter, its tensors allocated once."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load a model.

        Raises:
            BackendError: LiteRT refuses the file.
        """
        self._path = path
        # The interpreter raises ValueError, RuntimeError or, when built for another NumPy, SystemError.
        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except Exception as error:
            hint = "tflite-runtime needs numpy<2: install ai-edge-litert" if isinstance(error, SystemError) else None
            raise BackendError(f"{path}: LiteRT cannot load the model: {error}", hint=hint) from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = tuple(_describe(detail) for detail in inputs)
        self.outputs = tuple(_describe(detail) for detail in outputs)
        self._input_index = {str(detail["name"]): int(detail["index"]) for detail in inputs}
        self._output_index = {str(detail["name"]): int(detail["index"]) for detail in outputs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return every output by name.

        Raises:
            BackendError: The inputs do not fit, the run failed, or the backend is closed.
        """
        if self._interpreter is None:
            raise BackendError(f"{self._path}: the model is closed")
        if inputs.keys() != self._input_index.keys():
            raise BackendError(f"{self._path}: got inputs {sorted(inputs)}, takes {sorted(self._input_index)}")
        try:
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._input_index[name], value)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._output_index.items()}
        except Exception as error:
            raise BackendError(f"{self._path}: LiteRT failed: {error}") from error

    def close(self) -> None:
        """Give the interpreter's memory back."""
        self._interpreter = None


def _describe(detail: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(str(detail["name"]), tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"]).name)
