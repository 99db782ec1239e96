"""Run a graph that is not packed yet, as it is in memory."""

from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ommatid.runtime.onnx import DISABLED_OPTIMIZERS, session_options
from optimizer.artifact import serialize
from optimizer.errors import ConversionError


class Session:
    """One graph with one input, ready to run on one thread; the runtime may optimise it as a device would."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Load the graph.

        Raises:
            ConversionError: The runtime refuses it; its own words name the operator.
        """
        try:
            self._session: Any = onnxruntime.InferenceSession(
                serialize(model),
                sess_options=session_options(threads=1),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(DISABLED_OPTIMIZERS),
            )
        except Exception as error:  # the runtime's exceptions share no base class
            raise ConversionError(
                f"ONNX Runtime cannot run the model: {_last(str(error))}", hint="export it from standard operators"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, tensor: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Return every output by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: tensor}), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None


def _last(text: str) -> str:
    return text.strip().splitlines()[-1][-300:] if text.strip() else "no reason given"
