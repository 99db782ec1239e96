"""Bring any exported graph into the one shape that the later passes know.

Static shapes, an operator set that can carry per-channel weights, no leftovers of the exporter, explicit padding,
global pooling by its own name (the quantizer leaves a ReduceMean in float), and names short enough to read.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnxslim
from onnx import helper, shape_inference, version_converter

from ommatid.errors import BadInputError
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.errors import ConversionError
from optimizer.preprocessing import Size

MINIMUM_OPSET: Final = 13
"""The first operator set in which QuantizeLinear has an axis; per-channel weights are invalid before it."""
TARGET_OPSET: Final = 17
MAXIMUM_OPSET: Final = 20
IR_VERSION: Final = 8
"""What opset 17 was published with; a newer number only shuts older runtimes out."""
IR_VERSION_NEW: Final = 9
MAX_NAME: Final = 48
INPUT: Final = "input:float"
IMAGE_RANK: Final = 4
CHANNELS: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Normalise:
    """Simplify the graph without changing what it computes."""

    size: Size | None = None
    name: str = "normalise"

    def __call__(self, artifact: Artifact) -> Artifact:
        """Return the normalised model.

        Raises:
            BadInputError: No single image input, or its size is open and was not given.
            ConversionError: An operator is unknown, or cannot be brought to a newer operator set.
        """
        model = graph.copy(artifact.model)
        refuse_unknown_operators(model)
        fix_shape(model, self.size)
        model, opset = to_opset(model)
        model = simplify(model)
        explicit_padding(model)
        pooled = pool_globally(model)
        shorten_names(model)
        model = tidy(model)
        facts = [f"operator set {opset}", f"{len(model.graph.node)} operators"]
        if pooled:
            facts.append(f"{pooled} ReduceMean are GlobalAveragePool now")
        return artifact.derive(self.name, model, *facts)


def refuse_unknown_operators(model: onnx.ModelProto) -> None:
    """Refuse what no runtime of a device has.

    Raises:
        ConversionError: An operator is unknown, or comes from a domain of its own; it is named.
    """
    unknown = sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.domain in {"", "ai.onnx"} and not onnx.defs.has(node.op_type)
        }
    )
    if unknown:
        raise ConversionError(
            f"the model uses operators that ONNX {onnx.__version__} does not know: {', '.join(unknown)}",
            hint="export it again from standard operators",
        )
    custom = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in {"", "ai.onnx"}}
    )
    if custom:
        raise ConversionError(
            f"the model uses operators outside the ONNX standard: {', '.join(custom)}",
            hint="export it without post-processing: decoding and NMS are the device's part (--decode)",
        )
    quantized = sorted({node.op_type for node in model.graph.node if node.op_type in {"QuantizeLinear", "QLinearConv"}})
    if quantized:
        raise ConversionError(
            f"the model is quantized already (it holds {', '.join(quantized)})", hint="give the float model"
        )


def fix_shape(model: onnx.ModelProto, size: Size | None) -> None:
    """Give the image a fixed shape, batch 1.

    Raises:
        BadInputError: It is no image, or its size is open and `size` is None.
    """
    value = graph.image_input(model)
    shape = list(graph.shape_of(value))
    if len(shape) != IMAGE_RANK or value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        raise BadInputError(
            f"input {value.name} is {kind} of shape {shape}; a float image of four dimensions is expected",
            hint="export the model with a float32 input (1, 3, height, width) or (1, height, width, 3)",
        )
    shape[0] = 1
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if not first and not last:
        raise BadInputError(
            f"input {value.name} has shape {shape}: neither NCHW nor NHWC with 1 or 3 channels",
            hint="export the model with one picture as its input",
        )
    places = (2, 3) if first else (1, 2)
    for place, known in zip(places, (size.height, size.width) if size else (0, 0), strict=True):
        if shape[place] and known and shape[place] != known:
            raise BadInputError(
                f"--input-size: the model is fixed at {shape[places[0]]}x{shape[places[1]]}",
                hint="leave --input-size out, or export the model with an open size",
            )
        shape[place] = shape[place] or known
        if not shape[place]:
            raise BadInputError(
                f"input {value.name} has no fixed size", hint="say it: --input-size HEIGHTxWIDTH, such as 320x320"
            )
    for dim, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()  # the shape inference says it anew
    del model.graph.value_info[:]


def to_opset(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return the model in an operator set of 13 to 20, and which.

    Raises:
        ConversionError: An operator has no way there.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 1)
    if MINIMUM_OPSET <= opset <= MAXIMUM_OPSET:
        return model, opset
    try:
        return version_converter.convert_version(model, TARGET_OPSET), TARGET_OPSET
    except Exception as error:  # the converter raises RuntimeError and plain C++ exceptions
        raise ConversionError(
            f"operator set {opset} cannot be brought to {TARGET_OPSET}: {_first_line(error)}",
            hint=f"export the model with operator set {TARGET_OPSET}",
        ) from error


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with constants folded and leftovers removed, every shape known.

    Raises:
        ConversionError: The graph contradicts itself; the operator is named.
    """
    try:
        onnx.checker.check_model(model, full_check=False)
        with _quiet():
            slim = onnxslim.slim(model)
        return shape_inference.infer_shapes(slim, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx, onnxslim and their C++ raise anything
        raise ConversionError(
            f"the graph cannot be simplified: {_first_line(error)}", hint="export the model again with fixed shapes"
        ) from error


def explicit_padding(model: onnx.ModelProto) -> None:
    """Write SAME padding of convolutions as numbers, so that it can be moved."""
    shapes = {value.name: graph.shape_of(value) for value in (*model.graph.value_info, *model.graph.input)}
    for node in model.graph.node:
        rule = next((item.s.decode() for item in node.attribute if item.name == "auto_pad"), "NOTSET")
        shape, kernel = shapes.get(node.input[0]) if node.input else None, graph.attribute(node, "kernel_shape", [])
        if node.op_type != "Conv" or rule == "NOTSET" or not shape or not kernel:
            continue
        strides = graph.attribute(node, "strides", [1] * len(kernel))
        dilations = graph.attribute(node, "dilations", [1] * len(kernel))
        total = [
            max(0, (-(-length // stride) - 1) * stride + (extent - 1) * dilation + 1 - length) if "SAME" in rule else 0
            for length, extent, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True)
        ]
        small, large = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        graph.drop_attribute(node, "auto_pad")
        graph.set_attribute(node, "pads", small + large if rule != "SAME_LOWER" else large + small)


def pool_globally(model: onnx.ModelProto) -> int:
    """Replace each mean over height and width by GlobalAveragePool; return how many."""
    ranks = {value.name: len(graph.shape_of(value)) for value in (*model.graph.value_info, *model.graph.input)}
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != IMAGE_RANK or _mean_axes(model, node) != [2, 3]:
            nodes.append(node)
            continue
        changed += 1
        if next((item.i for item in node.attribute if item.name == "keepdims"), 1):
            nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]]))
        else:
            pooled = f"{node.output[0]}:pooled"
            nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled]))
            nodes.append(helper.make_node("Flatten", [pooled], [node.output[0]], axis=1))
    graph.set_nodes(model, nodes)
    return changed


def _mean_axes(model: onnx.ModelProto, node: onnx.NodeProto) -> list[int]:
    """Return the axes of a ReduceMean: an attribute up to operator set 17, an input from 18 on."""
    axes = graph.attribute(node, "axes", [])
    if len(node.input) > 1:
        constant = graph.weight(model, node.input[1])
        axes = [] if constant is None else [int(axis) for axis in constant.reshape(-1)]
    return sorted(axis % IMAGE_RANK for axis in axes)


def shorten_names(model: onnx.ModelProto) -> None:
    """Give nodes and inner tensors readable names; outputs keep theirs, and no name is left to meet ours by chance."""
    fixed = {value.name for value in model.graph.output}
    value = graph.image_input(model)
    renamed = {value.name: INPUT}
    value.name = INPUT
    taken = {*fixed, INPUT}
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
        for place, tensor in enumerate(node.output):
            renamed[tensor] = tensor if tensor in fixed or not tensor else f"{node.name}:{place}"
    for index, tensor in enumerate(model.graph.initializer):
        short = tensor.name if len(tensor.name) <= MAX_NAME and tensor.name not in taken else f"weight_{index}"
        taken.add(short)
        renamed[tensor.name] = tensor.name = short
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(tensor, tensor) for tensor in names]
    del model.graph.value_info[:]


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without remarks of its exporter, with every shape known again."""
    del model.metadata_props[:]
    model.producer_name = model.producer_version = model.doc_string = model.graph.doc_string = model.domain = ""
    model.model_version = 0
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    model.ir_version = IR_VERSION if opset <= TARGET_OPSET + 1 else IR_VERSION_NEW
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxslim from printing to stdout, which is ours for data."""
    logging.getLogger("onnxslim").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        yield


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
