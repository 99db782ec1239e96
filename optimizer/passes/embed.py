"""Put the preprocessing into the graph: the device hands over its pixels as they are.

The cheap way folds (pixel - mean) * scale into the first convolution, so that the uint8 picture *is* the quantized
input tensor of that layer (scale 1, zero point round(mean)), and costs nothing at run time. Zero padding then stands
for the pixel `zero point`; where a channel's mean is further than half a level from it, the picture gets a border of
its own means instead, and the convolution loses its padding. Other graphs get a prologue of Cast, Sub and Mul.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from ommatid.errors import BadInputError
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.preprocessing import Preprocessing

IMAGE: Final = "image"
PIXELS: Final = "pre:pixels"
"""The picture less its zero point, in NCHW; all names of this pass have a prefix that no exporter uses."""
TO_NCHW: Final = (0, 3, 1, 2)
HALF_LEVEL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Embed:
    """Make the input uint8 (1, height, width, channels), named `image`.

    `fold` False keeps the arithmetic in front of the model as it was stated: the reference to measure against.
    """

    preprocessing: Preprocessing
    fold: bool = True
    name: str = "embed preprocessing"

    def __call__(self, artifact: Artifact) -> Artifact:
        """Return the model that takes pixels.

        Raises:
            BadInputError: The model's channels are not those of the colour order.
        """
        model = graph.copy(artifact.model)
        source = _source(model, self.preprocessing)
        convolution = _first_convolution(model, source) if self.fold else None
        if convolution is None:
            _arithmetic_prologue(model, source, self.preprocessing)
            fact = "arithmetic in front of the model"
        else:
            bordered = _fold(model, source, convolution, self.preprocessing)
            fact = "folded into the first convolution" + (", with a border of mean pixels" if bordered else "")
        del model.graph.value_info[:]
        return artifact.derive(self.name, shape_inference.infer_shapes(model, strict_mode=True), fact)


@dataclass(frozen=True, slots=True)
class _Source:
    """The float input that the pixels replace: its tensor in NCHW, and the picture's size."""

    name: str
    channels_last: bool
    height: int
    width: int
    channels: int


def _source(model: onnx.ModelProto, preprocessing: Preprocessing) -> _Source:
    value = graph.image_input(model)
    shape = graph.shape_of(value)
    channels_last = shape[1] not in {1, 3}
    channels = shape[3] if channels_last else shape[1]
    height, width = shape[1:3] if channels_last else shape[2:4]
    if channels != preprocessing.channels:
        raise BadInputError(
            f"input {value.name} has {channels} channel(s), but colour order {preprocessing.color} has "
            f"{preprocessing.channels}",
            hint="--color gray is for models of one channel",
        )
    return _Source(value.name, channels_last, height, width, channels)


def _first_convolution(model: onnx.ModelProto, source: _Source) -> onnx.NodeProto | None:
    """Return the one convolution that reads the image, if preprocessing can go into its weights."""
    readers = graph.consumers(model, source.name)
    if source.channels_last:
        if len(readers) != 1 or readers[0].op_type != "Transpose":
            return None
        if tuple(graph.attribute(readers[0], "perm", [])) != TO_NCHW:
            return None
        readers = graph.consumers(model, readers[0].output[0])
    if len(readers) != 1 or readers[0].op_type != "Conv":
        return None
    node = readers[0]
    weights = graph.weight(model, node.input[1])
    biased = len(node.input) < 3 or graph.weight(model, node.input[2]) is not None  # noqa: PLR2004 - the bias
    shared = len(graph.consumers(model, node.input[1])) > 1
    return node if weights is not None and biased and not shared and weights.shape[1] == source.channels else None


def _fold(model: onnx.ModelProto, source: _Source, convolution: onnx.NodeProto, preprocessing: Preprocessing) -> bool:
    """Change the convolution to read (pixel - zero point); return whether the picture needs a border."""
    mean, scale = np.array(preprocessing.mean), np.array(preprocessing.scale)
    zero_point = int(np.clip(np.rint(mean.mean()), 0, 255))
    weights = np.asarray(graph.weight(model, convolution.input[1]), np.float64)
    bias = np.zeros(weights.shape[0])
    if len(convolution.input) > 2 and convolution.input[2]:  # noqa: PLR2004 - the bias
        bias = np.asarray(graph.weight(model, convolution.input[2]), np.float64)
    scaled = weights * scale[None, :, None, None]
    shift = (scaled * (zero_point - mean)[None, :, None, None]).sum(axis=(1, 2, 3))
    graph.set_weight(model, "pre:folded_weight", scaled.astype(np.float32))
    graph.set_weight(model, "pre:folded_bias", (bias + shift).astype(np.float32))
    convolution.input[:] = [PIXELS, "pre:folded_weight", "pre:folded_bias"]
    pads = graph.attribute(convolution, "pads", [0, 0, 0, 0])
    bordered = any(pads) and bool(np.abs(mean - zero_point).max() > HALF_LEVEL)
    nodes: list[onnx.NodeProto] = []
    picture = IMAGE
    if bordered:
        picture, nodes = _border(model, source, pads, np.clip(np.rint(mean), 0, 255).astype(np.uint8))
        graph.set_attribute(convolution, "pads", [0, 0, 0, 0])
    graph.set_weight(model, "pre:pixel_scale", np.array(1, np.float32))
    graph.set_weight(model, "pre:pixel_zero_point", np.array(zero_point, np.uint8))
    nodes += [
        helper.make_node("Transpose", [picture], ["pre:planes"], name="pre:planes", perm=TO_NCHW),
        helper.make_node(
            "DequantizeLinear", ["pre:planes", "pre:pixel_scale", "pre:pixel_zero_point"], [PIXELS], name=PIXELS
        ),
    ]
    _replace_input(model, source, nodes)
    return bordered


def _border(
    model: onnx.ModelProto, source: _Source, pads: list[int], mean: NDArray[np.uint8]
) -> tuple[str, list[onnx.NodeProto]]:
    """Return the bordered picture's name, and the nodes that make it: copies of bytes, no arithmetic."""
    top, left, bottom, right = pads
    width = source.width + left + right
    sides = {
        "left": (source.height, left),
        "right": (source.height, right),
        "top": (top, width),
        "bottom": (bottom, width),
    }
    for side, (rows, columns) in sides.items():
        graph.set_weight(model, f"pre:border_{side}", np.broadcast_to(mean, (1, rows, columns, source.channels)))
    across = [name for name, pad in (("pre:border_left", left), (IMAGE, 1), ("pre:border_right", right)) if pad]
    down = [name for name, pad in (("pre:border_top", top), ("pre:wide", 1), ("pre:border_bottom", bottom)) if pad]
    return "pre:bordered", [
        helper.make_node("Concat", across, ["pre:wide"], name="pre:wide", axis=2),
        helper.make_node("Concat", down, ["pre:bordered"], name="pre:bordered", axis=1),
    ]


def _arithmetic_prologue(model: onnx.ModelProto, source: _Source, preprocessing: Preprocessing) -> None:
    graph.set_weight(model, "pre:pixel_mean", np.array(preprocessing.mean, np.float32))
    graph.set_weight(model, "pre:pixel_scale", np.array(preprocessing.scale, np.float32))
    last = source.name if source.channels_last else "pre:normalised"
    nodes = [
        helper.make_node("Cast", [IMAGE], ["pre:float_pixels"], name="pre:float_pixels", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pre:float_pixels", "pre:pixel_mean"], ["pre:centred"], name="pre:centred"),
        helper.make_node("Mul", ["pre:centred", "pre:pixel_scale"], [last], name="pre:normalised"),
    ]
    if not source.channels_last:
        nodes.append(helper.make_node("Transpose", [last], [source.name], name="pre:planes", perm=TO_NCHW))
    _replace_input(model, source, nodes)


def _replace_input(model: onnx.ModelProto, source: _Source, prologue: list[onnx.NodeProto]) -> None:
    """Make `image` the input, computed on by `prologue`; drop what nothing reads any more."""
    shape = (1, source.height, source.width, source.channels)
    graph.image_input(model).CopyFrom(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    graph.set_nodes(model, [*prologue, *model.graph.node])
    drop_unread(model)


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that lead to no output."""
    while True:
        read = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
        idle = [node for node in model.graph.node if not read.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
    used = [tensor for tensor in model.graph.initializer if tensor.name in read]
    kept = [numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name) for tensor in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
