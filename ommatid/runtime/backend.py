"""What every runtime can do, and the way to the one that a model needs.

The runtimes are large, so each is imported by its own module, and only when a model of its format is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from ommatid.errors import BackendError

Format = Literal["onnx", "tflite"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output as the model file describes it; None is a size that only a run knows."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    """NumPy's name: float32, uint8, int8, int64."""


class Backend(Protocol):
    """One loaded model. One thread at a time calls an instance."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Return the inputs, in the model's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Return the outputs, in the model's order."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return every output by name, in memory of the caller's own.

        Raises:
            BackendError: The runtime refuses the inputs or fails, or the backend is closed.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back; a second call does nothing."""
        ...


def load_backend(model_format: Format, path: Path, threads: int = 1) -> Backend:
    """Load a model with the runtime of its format.

    Raises:
        BackendError: There is no such file, the runtime is not installed, or it cannot load the file.
    """
    if not path.is_file():
        raise BackendError(f"{path}: no such model file")
    try:
        if model_format == "onnx":
            from ommatid.runtime.onnx import OnnxBackend  # noqa: PLC0415 - a runtime is imported when chosen

            return OnnxBackend(path, threads)
        if model_format == "tflite":
            from ommatid.runtime.tflite import TfliteBackend  # noqa: PLC0415 - a runtime is imported when chosen

            return TfliteBackend(path, threads)
    except ImportError as error:
        raise BackendError(
            f"{path}: the runtime for {model_format} models cannot be imported: {error}",
            hint="install ommatid[agent]" if model_format == "onnx" else "install ai-edge-litert",
        ) from error
    raise BackendError(f"{path}: no runtime for the format {model_format!r}", hint="use onnx or tflite")
