"""Read a model file, and prove a conversion on real images before anything is built on it."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ommatid.contract.digests import sha256_file
from ommatid.errors import BackendError, BadInputError
from ommatid.runtime.backend import load_backend
from ommatid.vision.resize import InputPacker, Resizer
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.errors import ConversionError
from optimizer.preprocessing import Preprocessing
from optimizer.session import Session

TFLITE_MARK: Final = b"TFL3"
TOLERANCE: Final = 1e-3
"""Largest difference of a converted model's output, as a share of the output's own largest value."""
MAX_ONNX_BYTES: Final = 2 * 1024**3 - 1
"""What one protobuf message can hold."""


def read_model(path: Path) -> Artifact:
    """Return the model of an ONNX or TFLite file as an ONNX graph.

    Raises:
        BadInputError: There is no such file, or it is neither.
        ConversionError: A TFLite operator has no ONNX counterpart; it is named.
    """
    if not path.is_file():
        what = "a folder, not a model file" if path.is_dir() else "no such file"
        raise BadInputError(f"{path}: {what}", hint="name a model file: .onnx or .tflite")
    digest = sha256_file(path)
    if source_format(path) == "tflite":
        return Artifact.source(_from_tflite(path), digest, "TFLite, converted by tflite2onnx")
    return Artifact.source(_from_onnx(path), digest, "ONNX")


def source_format(path: Path) -> Literal["onnx", "tflite"]:
    """Tell what kind of file it is by its first bytes, not by its name."""
    with path.open("rb") as file:
        return "tflite" if file.read(8)[4:] == TFLITE_MARK else "onnx"


def _from_onnx(path: Path) -> onnx.ModelProto:
    hint = "name a model file in ONNX or TFLite format"
    if not 0 < path.stat().st_size <= MAX_ONNX_BYTES:
        raise BadInputError(f"{path}: not a model: it has {path.stat().st_size} bytes", hint=hint)
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path}: its weights are in another file, which is missing: {error}", hint="put that file beside it"
        ) from error
    except Exception as error:  # protobuf's DecodeError, and whatever onnx raises on external data
        raise BadInputError(f"{path}: not a model, or damaged", hint=hint) from error
    if not model.graph.node or not model.opset_import:
        raise BadInputError(f"{path}: not a model: it holds no operator", hint=hint)
    return model


def _from_tflite(path: Path) -> onnx.ModelProto:
    import tflite2onnx  # noqa: PLC0415 - slow to import, and needed for one format only

    try:
        operators = _tflite_operators(path)
    except Exception as error:  # flatbuffers fails with struct.error, IndexError, TypeError and others
        raise BadInputError(f"{path}: not a TFLite model, or damaged", hint="fetch or export it again") from error
    known = {_opcode_name(code) for code in tflite2onnx.op.OpFactory.registry}
    if unknown := sorted(set(operators) - known):
        raise ConversionError(
            f"{path}: TFLite operators that cannot be converted: {', '.join(unknown)}",
            hint="give the model in ONNX format",
        )
    with tempfile.TemporaryDirectory() as scratch, _quiet_converter():
        # The converter gets a copy: it has been seen to write beside its input.
        copy, converted = Path(scratch) / "model.tflite", Path(scratch) / "model.onnx"
        shutil.copyfile(path, copy)
        try:
            tflite2onnx.convert(str(copy), str(converted))
            return onnx.load(converted)
        except Exception as error:  # the converter asserts, and raises anything
            raise ConversionError(
                f"{path}: cannot be converted to ONNX: {error or type(error).__name__}",
                hint="give the float model, in ONNX format if there is one",
            ) from error


def _tflite_operators(path: Path) -> list[str]:
    import tflite  # noqa: PLC0415 - as tflite2onnx

    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    names = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        custom = code.CustomCode()
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        names.append(custom.decode() if custom else _opcode_name(builtin))
    if not names or not model.SubgraphsLength():
        raise ValueError("no operators")
    return names


def _opcode_name(code: int) -> str:
    import tflite  # noqa: PLC0415 - as tflite2onnx

    return str(tflite.BUILTIN_OPCODE2NAME.get(code, f"operator {code}"))


@contextlib.contextmanager
def _quiet_converter() -> Iterator[None]:
    """Silence the converter's remark on each float16 weight; the check on real images decides."""
    logger = logging.getLogger("tflite2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True, slots=True, eq=False)
class CheckConversion:
    """Run the source in its own runtime beside the converted graph, on real images, before preprocessing is folded."""

    source: Path
    pictures: Sequence[NDArray[np.uint8]]
    preprocessing: Preprocessing
    name: str = "check conversion"

    def __call__(self, artifact: Artifact) -> Artifact:
        """Return the artifact as it is, proven.

        Raises:
            ConversionError: The two differ; the output and the difference are named.
        """
        try:
            original = load_backend("tflite", self.source)
        except BackendError as error:
            raise ConversionError(str(error), hint="the model must run in LiteRT itself") from error
        worst = 0.0
        with Session(artifact.model) as converted:
            for picture in self.pictures:
                tensor = self._normalised(picture, artifact.model)
                expected = original.run({original.inputs[0].name: _as_input(tensor, original.inputs[0].shape)})
                worst = max(worst, _compare(expected, converted.run(tensor), self.source))
        original.close()
        fact = f"within {worst:.1e} of LiteRT on {len(self.pictures)} images"
        return artifact.derive(self.name, artifact.model, fact)

    def _normalised(self, picture: NDArray[np.uint8], model: onnx.ModelProto) -> NDArray[np.float32]:
        """Return the float tensor that the graph takes."""
        shape = graph.shape_of(graph.image_input(model))
        channels_last = shape[1] not in {1, 3}
        height, width = shape[1:3] if channels_last else shape[2:4]
        rule = self.preprocessing
        resizer = Resizer(rule.resize, width, height, rule.pad_value)
        packer = InputPacker((1, height, width, rule.channels), "float32", "NHWC", rule.color)
        pixels = packer.pack(resizer.resize(picture)[0]).astype(np.float32)
        tensor = (pixels - np.array(rule.mean, np.float32)) * np.array(rule.scale, np.float32)
        return np.ascontiguousarray(tensor if channels_last else tensor.transpose(0, 3, 1, 2))


def _as_input(tensor: NDArray[np.float32], shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    return tensor if tensor.shape[1:] == shape[1:] else np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))


def _compare(expected: dict[str, NDArray[Any]], actual: dict[str, NDArray[Any]], path: Path) -> float:
    """Return the largest difference as a share of the output's largest value."""
    worst = 0.0
    for name, wanted in expected.items():
        got = actual.get(name)
        if got is None or got.shape != wanted.shape:
            raise ConversionError(
                f"{path}: the converted model gives {name} {None if got is None else got.shape}, not {wanted.shape}",
                hint="give the model in ONNX format",
            )
        difference = float(np.abs(got - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"{path}: converted to ONNX its output {name} differs by {difference:.2g} of its range "
                f"(at most {TOLERANCE:g})",
                hint="the converter does not carry this model over: give it in ONNX format",
            )
        worst = max(worst, difference)
    return worst
