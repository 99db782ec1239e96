"""Tiny real models, made on the spot, and unpacked bundle folders of them.

`classifier`: 3 classes by the mean colour of the picture (blue, green, red).
`detector`: an SSD of 18 anchors on 32x32 pixels; class 1 where a cell is bright, class 2 where it is red.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ommatid.runtime.spec import InputSpec, ModelSpec, TaskSpec
from ommatid.vision.classify import ClassificationDecode
from ommatid.vision.ssd import SsdAnchors, SsdDecode

LABELS = ("blue", "green", "red")
DETECTOR_LABELS = ("background", "bright", "red")
DETECTOR_ANCHORS = SsdAnchors(strides=(16, 32))
DETECTOR_ANCHOR_COUNT = 2 * 2 * 3 + 1 * 6


def write_classifier_onnx(path: Path, gain: float = 0.05) -> Path:
    """Write a float32 NCHW BGR model, input `image` (1, 3, 8, 8), output `scores` (1, 3)."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "gain"], ["scores"]),
    ]
    return _save_onnx(path, nodes, {"gain": np.array(gain, np.float32)}, (1, 3, 8, 8), {"scores": (1, 3)})


def write_detector_onnx(path: Path, shift: float = 0.0) -> Path:
    """Write a float32 NCHW RGB model, input `image` (1, 3, 32, 32), outputs `boxes` and `scores`.

    `shift` moves every box by that many tenths of its anchor: the way to a model that disagrees.
    """
    bright = np.full((3, 1, 1), 1 / 3, np.float32)
    red = np.array([1, -0.5, -0.5], np.float32).reshape(3, 1, 1)
    weights: dict[str, NDArray[Any]] = {"shape": np.array([1, -1, 3], np.int64)}
    nodes = []
    for name, stride, anchors in (("low", 16, 3), ("high", 32, 6)):
        per_class = np.stack([np.zeros_like(bright), bright / 16, red / 16])
        kernel = np.broadcast_to(np.tile(per_class, (anchors, 1, 1, 1)), (3 * anchors, 3, stride, stride)) / stride**2
        weights[f"{name}_kernel"] = kernel.astype(np.float32)
        weights[f"{name}_bias"] = np.tile(np.array([0, -8, -8], np.float32), anchors)
        nodes += [
            helper.make_node(
                "Conv",
                ["image", f"{name}_kernel", f"{name}_bias"],
                [f"{name}_map"],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            ),
            helper.make_node("Transpose", [f"{name}_map"], [f"{name}_nhwc"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_nhwc", "shape"], [f"{name}_scores"]),
        ]
    offsets = np.zeros((1, DETECTOR_ANCHOR_COUNT, 4), np.float32)
    offsets[..., :2] = shift
    weights |= {"offsets": offsets, "zero": np.array(0, np.float32)}
    nodes += [
        helper.make_node("Concat", ["low_scores", "high_scores"], ["scores"], axis=1),
        helper.make_node("Add", ["offsets", "zero"], ["boxes"]),
    ]
    outputs = {"boxes": (1, DETECTOR_ANCHOR_COUNT, 4), "scores": (1, DETECTOR_ANCHOR_COUNT, 3)}
    return _save_onnx(path, nodes, weights, (1, 3, 32, 32), outputs)


def write_constant_onnx(path: Path, values: NDArray[np.float32], *, name: str = "scores") -> Path:
    """Write a model of input `image` (1, 3, 8, 8) that gives `values` whatever it sees."""
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["values", "nothing"], [name]),
    ]
    weights: dict[str, NDArray[Any]] = {"values": values, "zero": np.array(0, np.float32)}
    return _save_onnx(path, nodes, weights, (1, 3, 8, 8), {name: values.shape})


def _save_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    shape: tuple[int, ...],
    outputs: Mapping[str, tuple[int, ...]],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_classifier_tflite(path: Path) -> Path:
    """Write a float32 NHWC model, input `image` (1, 8, 8, 3), output `scores` (1, 3): the mean of each channel."""
    model = tfl.ModelT()
    model.version = 3
    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.MEAN
    model.operatorCodes = [code]
    axes = tfl.BufferT()
    axes.data = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)
    model.buffers = [tfl.BufferT(), axes]
    float32, int32 = tfl.TensorType.FLOAT32, tfl.TensorType.INT32
    graph = tfl.SubGraphT()
    graph.tensors = [
        _tflite_tensor("image", (1, 8, 8, 3), float32, 0),
        _tflite_tensor("axes", (2,), int32, 1),
        _tflite_tensor("scores", (1, 3), float32, 0),
    ]
    mean = tfl.OperatorT()
    mean.opcodeIndex = 0
    mean.inputs, mean.outputs = [0, 1], [2]
    mean.builtinOptionsType = tfl.BuiltinOptions.ReducerOptions
    mean.builtinOptions = tfl.ReducerOptionsT()
    graph.operators = [mean]
    graph.inputs, graph.outputs = [0], [2]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tflite_tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int) -> tfl.TensorT:
    tensor = tfl.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    return tensor


def classifier_spec(model: Path) -> ModelSpec:
    """Describe the classifier, in either format."""
    tflite = model.suffix == ".tflite"
    return ModelSpec(
        name="tiny-classifier",
        format="tflite" if tflite else "onnx",
        model=model,
        input=InputSpec(
            name="image",
            shape=(1, 8, 8, 3) if tflite else (1, 3, 8, 8),
            dtype="float32",
            layout="NHWC" if tflite else "NCHW",
            color="bgr",
            resize="stretch",
        ),
        task=TaskSpec("classification", ClassificationDecode("scores", top_k=3)),
        labels=LABELS,
    )


def detector_spec(model: Path, resize: Literal["stretch", "letterbox"] = "stretch") -> ModelSpec:
    """Describe the detector."""
    return ModelSpec(
        name="tiny-detector",
        format="onnx",
        model=model,
        input=InputSpec("image", (1, 3, 32, 32), "float32", "NCHW", "rgb", resize),
        task=TaskSpec("detection", SsdDecode("boxes", "scores", DETECTOR_ANCHORS), score_threshold=0.5),
        labels=DETECTOR_LABELS,
    )
