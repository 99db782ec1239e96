"""A small convolutional classifier made on the spot, pictures for it, and the real assets of the demo.

The classifier tells which colour is strongest. One of its filters has huge weights that cancel out on plain pictures:
harmless with one scale a channel, fatal with one scale a tensor, where all other weights become 0.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from optimizer.cli import cli

ROOT = Path(__file__).parent.parent.parent
CLASSES = ("red", "green", "blue")
SIDE = 16


def make_classifier(
    *,
    pads: Sequence[int] = (0, 0, 0, 0),
    channels_last: bool = False,
    opset: int = 13,
    open_size: bool = False,
    batch: int | str = 1,
) -> onnx.ModelProto:
    """Return Conv, Relu, ReduceMean, Gemm on a float picture of 16x16; input `picture`, output `scores`."""
    rng = np.random.default_rng(7)
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    for color in range(3):
        kernel[color, color] = (1 + 0.1 * rng.random((3, 3))) / 9
    kernel[3, 0, 0, 0], kernel[3, 0, 2, 2] = 300, -300
    head = np.zeros((4, 3), np.float32)
    head[:3, :3] = np.eye(3) * 4
    weights = {"kernel": kernel, "bias": np.array([2, 2, 2, 0], np.float32), "head": head}
    weights["offset"] = np.array([0.1, 0, -0.1], np.float32)
    nodes = [helper.make_node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2])] if channels_last else []
    source = "planes" if channels_last else "picture"
    nodes += [
        helper.make_node("Conv", [source, "kernel", "bias"], ["map"], kernel_shape=[3, 3], pads=list(pads)),
        helper.make_node("Relu", ["map"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["mean", "head", "offset"], ["scores"]),
    ]
    side: int | str = "side" if open_size else SIDE
    shape = (batch, side, side, 3) if channels_last else (batch, 3, side, side)
    return make_model(nodes, weights, {"picture": shape}, {"scores": (batch, 3)}, opset)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    inputs: dict[str, tuple[int | str, ...]],
    outputs: dict[str, tuple[int | str, ...]],
    opset: int = 13,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return a model of float inputs and outputs."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=7)


def write_pictures(folder: Path, count: int, *, seed: int = 0, by_class: bool = False) -> Path:
    """Write plain pictures, the classes in turn, each clearly of one colour; return the folder."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        color = index % 3
        rgb = rng.integers(10, 150, 3)
        rgb[color] = rng.integers(190, 250)
        name = f"{index:03}.png"
        path = folder / CLASSES[color] / name if by_class else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((30, 40, 3), rgb[::-1], np.uint8))
    return folder


def write_video(path: Path, count: int, fps: float = 10.0) -> Path:
    """Write a video of plain pictures, the classes in turn."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for index in range(count):
        bgr = [40, 40, 40]
        bgr[2 - index % 3] = 200 + index % 40
        writer.write(np.full((48, 64, 3), bgr, np.uint8))
    writer.release()
    return path


def write_spots(path: Path, count: int) -> Path:
    """Write a video of one bright quarter at a time, ten pictures a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for index in range(count):
        picture = np.zeros((64, 64, 3), np.uint8)
        top, left = 32 * (index // 2 % 2), 32 * (index % 2)
        picture[top : top + 32, left : left + 32] = 200 + index % 50
        writer.write(picture)
    writer.release()
    return path


def optimizer(*arguments: str | Path) -> Result:
    """Run the command line; a crash is raised, an expected error is in the result."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def build_arguments(folder: Path, model: onnx.ModelProto | None = None) -> list[str]:
    """Write the classifier, its labels and pictures; return a build command that succeeds."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model or make_classifier(), folder / "colours.onnx")
    (folder / "labels.txt").write_text("\n".join(CLASSES))
    write_pictures(folder / "learn", 24, seed=1)
    write_pictures(folder / "judge", 24, seed=2)
    (folder / "out").mkdir()
    files = ["--labels", str(folder / "labels.txt"), "-o", str(folder / "out")]
    images = ["--calibrate", str(folder / "learn"), "--validate", str(folder / "judge")]
    pixels = ["--mean", "0", "--scale", "0.0039215686", "--color", "rgb", "--resize", "stretch"]
    task = ["--target", "int8-x86", "--decode", "classification", "--version", "1"]
    return ["build", str(folder / "colours.onnx"), *task, *files, *images, *pixels]


def report(result: Result) -> dict[str, Any]:
    """Return the JSON that a command printed."""
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def fetch_assets() -> dict[str, Path]:
    """Return the demo's real model, labels and video, fetched if they are not in the cache."""
    spec = importlib.util.spec_from_file_location("assets", ROOT / "tools" / "assets.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault("assets", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    assets: dict[str, Path] = module.fetch_assets()
    return assets
