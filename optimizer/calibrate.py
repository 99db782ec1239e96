"""Watch which values each tensor takes on real images; one pass serves every try of the search.

Each image leaves one minimum and one maximum a tensor, so memory does not grow with the images (histogram
calibrators keep every activation). `typical` cuts off the extremes that only few images reach.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer import graph
from optimizer.passes.quantize import Ranges
from optimizer.session import Session

TYPICAL_PERCENT: Final = 10
_LOW, _HIGH = "__low", "__high"


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What was seen: row i of `low` and `high` is image i, column j is tensor j."""

    tensors: tuple[str, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def extremes(self) -> Ranges:
        """Return the smallest and largest value over all images (MinMax)."""
        return self._ranges(self.low.min(axis=0), self.high.max(axis=0))

    def typical(self) -> Ranges:
        """Return the range that nine of ten images stay within: outliers are clipped, the rest gets finer steps."""
        low = np.percentile(self.low, TYPICAL_PERCENT, axis=0, method="nearest")
        high = np.percentile(self.high, 100 - TYPICAL_PERCENT, axis=0, method="nearest")
        return self._ranges(low, high)

    def _ranges(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> Ranges:
        return {
            name: (float(lowest), float(highest)) for name, lowest, highest in zip(self.tensors, low, high, strict=True)
        }


def calibrate(
    model: onnx.ModelProto, pictures: Iterable[NDArray[np.uint8]], tick: Callable[[], None] = lambda: None
) -> Calibration:
    """Run a float model that takes pixels on each picture (an input tensor), and note every tensor's range."""
    tensors = _float_tensors(model)
    observed = _with_ranges(model, tensors)
    low, high = [], []
    with Session(observed) as session:
        for picture in pictures:
            values = session.run(picture)
            low.append([float(values[name + _LOW]) for name in tensors])
            high.append([float(values[name + _HIGH]) for name in tensors])
            tick()
    return Calibration(tensors, np.array(low, np.float32), np.array(high, np.float32))


def _float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    known = (*model.graph.value_info, *model.graph.output)
    floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return tuple(name for node in model.graph.node for name in node.output if name in floats)


def _with_ranges(model: onnx.ModelProto, tensors: tuple[str, ...]) -> onnx.ModelProto:
    observed = graph.copy(model)
    del observed.graph.output[:]
    for name in tensors:
        for kind, suffix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
            observed.graph.node.append(helper.make_node(kind, [name], [name + suffix], keepdims=0))
            observed.graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, ()))
    return observed
