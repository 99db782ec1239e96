"""Make a graph int8: QDQ, uint8 activations, int8 weights (U8S8), one calibration for every try.

U8S8 per channel runs fully in integers on x86 (VNNI) and ARM alike and gave bit-identical results on both; U16 and
signed activations are slower. `reduce_range` is never used: it costs accuracy and serves only x86 CPUs without VNNI.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.errors import ConversionError
from optimizer.passes.embed import PIXELS, drop_unread

Ranges = Mapping[str, tuple[float, float]]
"""The smallest and largest value of each tensor over the calibration images."""

HEAVY: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The layers with weights: what int8 is for."""
QUANTIZABLE: Final = sorted(
    {*QLinearOpsRegistry, *QDQRegistry} - {"Softmax", "ArgMax", "TopK", "EmbedLayerNormalization"}
)
_MINIMUM_SPAN: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Quantize:
    """Quantize with known ranges, leaving `float_layers` as they are."""

    ranges: Ranges
    per_channel: bool = True
    float_layers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    name: str = "quantize"

    def __call__(self, artifact: Artifact) -> Artifact:
        """Return the int8 model.

        Raises:
            ConversionError: No layer can be quantized, or the quantizer fails at one; it is named.
        """
        refuse_unquantizable(artifact.model)
        model = graph.copy(artifact.model)
        prologue = [node.name for node in model.graph.node if node.output[0] in _before_pixels(model)]
        try:
            quantized = self._quantizer(model, prologue).quantize_model()
        except Exception as error:  # the quantizer raises ValueError, RuntimeError, KeyError and AttributeError
            raise ConversionError(
                f"the model cannot be quantized: {str(error).splitlines()[0] if str(error) else error!r}",
                hint="build with --target fp32, or export the model without that operator",
            ) from error
        _use_pixels_directly(quantized)
        quantized.producer_name = quantized.producer_version = ""
        scheme = "per channel" if self.per_channel else "per tensor"
        facts = [f"U8S8 {scheme}", *(f"{layer} stays float" for layer in self.float_layers)]
        return artifact.derive(self.name, quantized, *facts)

    def _quantizer(self, model: onnx.ModelProto, prologue: list[str]) -> Any:  # noqa: ANN401 - untyped library
        logging.getLogger().addFilter(_no_chatter)
        overrides = {}
        source = next((node for node in model.graph.node if PIXELS in node.output), None)
        if source is not None:
            scale, zero_point = graph.weight(model, source.input[1]), graph.weight(model, source.input[2])
            overrides[PIXELS] = [{"scale": scale, "zero_point": zero_point}]
        return QDQQuantizer(
            model,
            self.per_channel,
            False,  # reduce_range
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, {name: _span(*pair) for name, pair in self.ranges.items()}),
            list(self.only),
            [*self.float_layers, *prologue],
            QUANTIZABLE,
            {"TensorQuantOverrides": overrides, "MinimumRealRange": _MINIMUM_SPAN},
        )


def layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the layers with weights, in the graph's order."""
    return tuple(node.name for node in model.graph.node if node.op_type in HEAVY)


def refuse_unquantizable(model: onnx.ModelProto) -> None:
    """Refuse a graph that would come out as it went in.

    Raises:
        ConversionError: No layer with weights; the operators are named.
    """
    if not layers(model):
        kinds = sorted({node.op_type for node in model.graph.node})
        raise ConversionError(
            f"no operator of the model can be quantized (it has {', '.join(kinds)})",
            hint=f"int8 needs one of {', '.join(sorted(HEAVY))}; build with --target fp32",
        )


def _span(low: float, high: float) -> tuple[Any, Any]:
    return np.array(low, np.float32), np.array(high, np.float32)


def _before_pixels(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that still hold pixels as bytes, and the first float one."""
    known = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    return {name for name, kind in known.items() if kind == onnx.TensorProto.UINT8} | {PIXELS}


def _use_pixels_directly(model: onnx.ModelProto) -> None:
    """Drop the pair that would turn quantized pixels into floats and back into the same bytes."""
    source = next((node for node in model.graph.node if PIXELS in node.output), None)
    if source is None:
        return
    for again in [node for node in graph.consumers(model, PIXELS) if node.op_type == "QuantizeLinear"]:
        for reader in graph.consumers(model, again.output[0]):
            reader.input[0] = source.input[0]
    drop_unread(model)


def _no_chatter(record: logging.LogRecord) -> bool:
    return not str(record.pathname).endswith(("qdq_quantizer.py", "quant_utils.py", "base_quantizer.py"))
