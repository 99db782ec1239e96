"""Small, real, valid bundles: a tiny SSD in ONNX that finds bright and dark squares, and models that go wrong.

The model takes 32x32 float32 RGB; each 8x8 cell has three anchors, and is `bright` above 160 and `dark` below 60. All
bytes depend on the arguments alone.
"""

import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ommatid.contract.bundle import unpack_bundle, write_bundle
from ommatid.contract.digests import sha256_bytes, sha256_file
from ommatid.contract.manifest import (
    BundleFile,
    Compatible,
    Evidence,
    EvidenceStep,
    Golden,
    GoldenSample,
    InputSpec,
    Manifest,
    Provenance,
    RuntimeSpec,
    SsdAnchors,
    SsdDecode,
    Task,
)
from ommatid.runtime.golden import write_image, write_outputs, write_reference
from ommatid.runtime.model import Model
from ommatid.runtime.spec import parse_spec
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.signals import measure

Fault = Literal["golden", "agreement", "nan", "frames", "slow", "hang", "memory", "garbage", "crash"]
"""What is wrong with a model.

golden: its outputs are not the stored ones. agreement: the float model saw something else. nan: it gives NaN.
frames: it gives NaN when the lower half of a picture is bright, as in a video, but in no golden sample. slow: dozens
of times slower. hang: it does not end within minutes. memory: one run takes 2 GB. garbage: the file is no model. crash:
loading it overflows the runtime's stack, and the process dies by SIGSEGV.
"""

LABELS: Final = ("background", "bright", "dark")
SIZE: Final = 32
CELL: Final = 8
ANCHORS: Final = 3
PROFILED: Final = 16
_ROLES: Final[dict[str, Literal["model", "labels", "golden", "reference"]]] = {
    "model.onnx": "model",
    "labels.txt": "labels",
    "reference.json": "reference",
}


def make_bundle(
    folder: Path,
    name: str = "detector",
    version: str = "1",
    *,
    target: str = "fp32",
    fault: Fault | None = None,
    samples: int = 2,
    minimum_agent: str = "0.1.0",
) -> Path:
    """Write `NAME-VERSION-TARGET.bundle` into `folder` and return its path; another version has another digest."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        content = Path(scratch)
        manifest = _write_content(content, name, version, target, samples, minimum_agent, fault)
        path = folder / manifest.bundle_name
        write_bundle(path, manifest, {file.path: content / file.path for file in manifest.files})
    return path


def unpack(bundle: Path, store: Path) -> Path:
    """Unpack into `store/<sha256 of the bundle>`, as an agent does, and return that folder."""
    folder = store / sha256_file(bundle)
    if not folder.exists():
        unpack_bundle(bundle, folder)
    return folder


def install(bundle: Path, state: Path, *, slot: str = "current") -> Path:
    """Unpack into an agent's state folder, point a slot of the model there, make the model active; return the folder.

    The layout is the agent's: `store/<sha256>`, `models/<name>/<slot>`, and `models/active` -> name.
    """
    folder = unpack(bundle, state / "store")
    name = bundle.name.removesuffix(".bundle").rsplit("-", 2)[0]
    _link(state / "models" / name / slot, f"../../store/{folder.name}")
    _link(state / "models" / "active", name)
    return folder


def picture(seed: int = 0, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a grey BGR picture with a bright and a dark square; `seed` moves them."""
    bgr = np.full((height, width, 3), 110, np.uint8)
    step, row = width // 4, height // 4
    left, top = seed % 4, (seed // 4) % 4
    bgr[top * row : (top + 1) * row, left * step : (left + 1) * step] = 250
    left, top = (left + 2) % 4, (top + 1) % 4
    bgr[top * row : (top + 1) * row, left * step : (left + 1) * step] = 5
    return bgr


def _link(link: Path, points_to: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(points_to)


def _write_content(
    folder: Path, name: str, version: str, target: str, samples: int, minimum_agent: str, fault: Fault | None
) -> Manifest:
    (folder / "golden").mkdir()
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    profile = ReferenceProfile.of(measure(picture(number)) for number in range(PROFILED))
    (folder / "reference.json").write_bytes(profile.encode())
    (folder / "model.onnx").write_bytes(_model(None))
    golden = [_sample(number) for number in range(samples)]
    draft = _manifest(folder, name, version, target, minimum_agent, golden, listed=[])
    with Model.from_spec(parse_spec(draft.model_dump(mode="json"), folder, LABELS)) as model:
        for number in range(samples):
            _write_sample(folder, number, model, fault)
    (folder / "model.onnx").write_bytes(b"no model at all" * 100 if fault == "garbage" else _model(fault))
    listed = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _manifest(folder, name, version, target, minimum_agent, golden, listed=listed)


def _sample(number: int) -> GoldenSample:
    return GoldenSample(image=f"golden/{number}.png", outputs=f"golden/{number}.npz", reference=f"golden/{number}.json")


def _write_sample(folder: Path, number: int, model: Model, fault: Fault | None) -> None:
    image = picture(number)
    inference = model.infer(image)
    outputs = dict(inference.outputs)
    if fault == "golden":
        outputs = {name: value + 1.0 for name, value in outputs.items()}
    seen = model.infer(picture(number + 7)).result if fault == "agreement" else inference.result
    write_image(folder / f"golden/{number}.png", image)
    write_outputs(folder / f"golden/{number}.npz", outputs)
    write_reference(folder / f"golden/{number}.json", seen, LABELS)


def _manifest(
    folder: Path,
    name: str,
    version: str,
    target: str,
    minimum_agent: str,
    golden: list[GoldenSample],
    listed: list[str],
) -> Manifest:
    digest = sha256_bytes(b"tests.support.bundles")
    size = (folder / "model.onnx").stat().st_size
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "target": target,
        "runtime": RuntimeSpec(format="onnx", minimum_version="1.20", model="model.onnx"),
        "compatible": Compatible(
            arch=("aarch64", "x86_64"), memory_bytes=64 * 1024 * 1024, minimum_agent=minimum_agent
        ),
        "input": InputSpec(
            name="image", shape=(1, 3, SIZE, SIZE), dtype="float32", layout="NCHW", color="rgb", resize="stretch"
        ),
        "task": Task(
            kind="detection",
            decode=SsdDecode(
                boxes="boxes", scores="scores", anchors=SsdAnchors(strides=(CELL,)), activation="sigmoid", background=0
            ),
            labels="labels.txt",
            score_threshold=0.6,
        ),
        "golden": Golden(samples=tuple(golden), tolerance={"onnx": 1e-3}, minimum_agreement=0.97),
        "reference": "reference.json",
        "evidence": Evidence(
            metric="agreement_f1",
            reference_value=1.0,
            steps=(EvidenceStep(step="float", value=1.0),),
            value=1.0,
            images=2,
            gate="passed",
            minimum_agreement=0.97,
            size_bytes=size,
            reference_size_bytes=size,
        ),
        "provenance": Provenance(
            source_sha256=digest, validation_sha256=digest, recipe_sha256=digest, tools={"onnx": onnx.__version__}
        ),
    }
    if not listed:  # the draft, from which the golden outputs are computed
        return Manifest.model_construct(**fields, files=())
    return Manifest(**fields, files=tuple(_file(folder, path) for path in listed))


def _file(folder: Path, path: str) -> BundleFile:
    return BundleFile(
        path=path,
        role=_ROLES.get(path, "golden"),
        size_bytes=(folder / path).stat().st_size,
        sha256=sha256_file(folder / path),
    )


def _model(fault: Fault | None) -> bytes:
    """Return the detector: one convolution gives each cell's brightness, the rest is bookkeeping."""
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL] * 2),
        helper.make_node("Transpose", ["cells"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["rows", "scores_shape"], ["plain_scores"]),
        helper.make_node("Mul", ["plain_scores", "nothing"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Expand", ["zero", "boxes_shape"], ["boxes"]),
    ]
    count = (SIZE // CELL) ** 2 * ANCHORS
    weights = {
        "weight": _weight(),
        "bias": np.tile(np.array([-10.0, -20.0, 7.5], np.float32), ANCHORS),
        "scores_shape": np.array([1, count, len(LABELS)], np.int64),
        "boxes_shape": np.array([1, count, 4], np.int64),
        "nothing": np.zeros(1, np.float32),
    }
    extra, more, functions = _fault(fault)
    graph = helper.make_graph(
        [*nodes, *extra, helper.make_node("Add", ["plain_scores", "trouble" if extra else "zero"], ["scores"])],
        "bright-and-dark",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, count, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, count, len(LABELS)]),
        ],
        [numpy_helper.from_array(value, key) for key, value in {**weights, **more}.items()],
    )
    model = helper.make_model(graph, opset_imports=_opsets(), ir_version=8, functions=functions)
    return bytes(model.SerializeToString(deterministic=True))


def _weight() -> NDArray[np.float32]:
    """Return weights that give (background, bright, dark) logits of a cell's mean brightness, for each anchor."""
    share = 1.0 / (3 * CELL * CELL)
    slopes = np.array([0.0, 1 / 8, -1 / 8] * ANCHORS, np.float32)
    return np.asarray(np.ones((len(slopes), 3, CELL, CELL), np.float32) * slopes[:, None, None, None] * share)


def _opsets() -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", 17), helper.make_opsetid("deep", 1)]


def _fault(
    fault: Fault | None,
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], list[onnx.FunctionProto]]:
    """Return nodes that compute `trouble` from `zero`, with their constants and functions."""
    match fault:
        case "nan":
            return [helper.make_node("Div", ["zero", "nothing"], ["trouble"])], {}, []
        case "frames":
            nodes = [
                helper.make_node("Slice", ["image", "half", "whole", "down"], ["lower"]),
                helper.make_node("ReduceMax", ["lower"], ["brightest"], keepdims=0),
                helper.make_node("Sub", ["bright", "brightest"], ["darkness"]),
                helper.make_node("Relu", ["darkness"], ["never"]),
                helper.make_node("Div", ["zero", "never"], ["trouble"]),
            ]
            bounds = {"half": SIZE // 2, "whole": SIZE, "down": 2}
            constants = {name: np.array([value], np.int64) for name, value in bounds.items()}
            return nodes, {**constants, "bright": np.array(200, np.float32)}, []
        case "slow" | "hang":
            return _busy(24, 384) if fault == "slow" else _busy(1000, 2000)
        case "memory":
            nodes = [
                helper.make_node("Expand", ["zero", "huge"], ["filled"]),
                helper.make_node("CumSum", ["filled", "axis"], ["sums"]),
                helper.make_node("ReduceMax", ["sums"], ["trouble"], keepdims=0),
            ]
            return nodes, {"huge": np.array([1 << 28], np.int64), "axis": np.array(0, np.int64)}, []
        case "crash":
            depth = 20_000
            functions = [_deep_function(level, depth) for level in range(depth)]
            return [helper.make_node("f0", ["zero"], ["trouble"], domain="deep")], {}, functions
        case _:
            return [], {}, []


def _busy(rounds: int, size: int) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], list[onnx.FunctionProto]]:
    """Return `rounds` products of `size` x `size` matrices of zeros, which nothing can optimize away."""
    nodes = [helper.make_node("Expand", ["zero", "busy_shape"], ["busy0"])]
    nodes += [helper.make_node("MatMul", [f"busy{turn}", f"busy{turn}"], [f"busy{turn + 1}"]) for turn in range(rounds)]
    nodes.append(helper.make_node("ReduceMax", [f"busy{rounds}"], ["trouble"], keepdims=0))
    return nodes, {"busy_shape": np.array([size, size], np.int64)}, []


def _deep_function(level: int, depth: int) -> onnx.FunctionProto:
    last = level == depth - 1
    body = helper.make_node("Relu" if last else f"f{level + 1}", ["a"], ["b"], domain="" if last else "deep")
    return helper.make_function("deep", f"f{level}", ["a"], ["b"], [body], _opsets())
