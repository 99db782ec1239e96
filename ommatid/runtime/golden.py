"""The golden samples: proof that this device computes what the builder computed, and that the build still is the model.

Each sample is an image with two answers: the raw outputs of this very artifact, which a device must reproduce
within a tolerance, and the decoded result of the float model, with which it must agree, so that a bad build cannot
vouch for itself. The builder writes and the device reads them through this one module.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BundleError
from ommatid.runtime.model import Model
from ommatid.runtime.spec import GoldenSample
from ommatid.vision.agreement import Agreement, agree
from ommatid.vision.results import Result, from_json, to_json

MAX_ENTRIES: Final = 64
MAX_ARRAY_BYTES: Final = 64 * 1024 * 1024
MAX_REFERENCE_BYTES: Final = 1024 * 1024
MAX_PIXELS: Final = 64 * 1024 * 1024
_PNG_HEADER: Final = 24


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What one golden image showed."""

    image: str
    worst_difference: float
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class GoldenVerdict:
    """What all golden samples showed together.

    worst_difference: largest |output - stored| over all outputs, as a share of the stored output's range.
    agreement: with the float model, over all samples.
    """

    samples: tuple[SampleVerdict, ...]
    tolerance: float
    minimum_agreement: float

    @property
    def worst_difference(self) -> float:
        """Return the largest difference of any sample; infinite where an output is missing or misshapen."""
        return max(sample.worst_difference for sample in self.samples)

    @property
    def agreement(self) -> Agreement:
        """Return the agreement with the float model over all samples."""
        return sum((sample.agreement for sample in self.samples), Agreement())

    @property
    def reproduced(self) -> bool:
        """Tell whether this device computes what the builder computed."""
        return self.worst_difference <= self.tolerance

    @property
    def agreed(self) -> bool:
        """Tell whether the build still sees what the float model saw."""
        return self.agreement.value >= self.minimum_agreement

    @property
    def passed(self) -> bool:
        """Tell whether the model may run."""
        return self.reproduced and self.agreed

    def describe(self) -> str:
        """Return one sentence for an operator."""
        return (
            f"largest difference {self.worst_difference:.2g} of the output range (at most {self.tolerance:.2g}), "
            f"agreement with the float model {self.agreement.value:.3f} (at least {self.minimum_agreement:.3f}) "
            f"on {len(self.samples)} images"
        )


def check_golden(model: Model) -> GoldenVerdict:
    """Run every golden sample of the bundle that `model` was loaded from.

    Raises:
        BundleError: The bundle has no golden samples for this runtime, or one cannot be read.
        BackendError: The model failed on one.
    """
    golden = model.spec.golden
    if golden is None or not golden.samples or model.spec.format not in golden.tolerance:
        raise BundleError(f"{model.spec.name}: no golden samples for {model.spec.format}")
    return GoldenVerdict(
        samples=tuple(check_sample(model, sample) for sample in golden.samples),
        tolerance=golden.tolerance[model.spec.format],
        minimum_agreement=golden.minimum_agreement,
    )


def check_sample(model: Model, sample: GoldenSample) -> SampleVerdict:
    """Run one golden sample.

    Raises:
        BundleError: The sample cannot be read.
        BackendError: The model failed on it.
    """
    inference = model.infer(read_image(sample.image))
    return SampleVerdict(
        image=sample.image.name,
        worst_difference=worst_difference(inference.outputs, read_outputs(sample.outputs)),
        agreement=_agreement(inference.result, sample.reference),
    )


def worst_difference(outputs: Mapping[str, NDArray[Any]], stored: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest |output - stored| as a share of the stored output's own range; 1 unit where that is 0."""
    return max((_difference(outputs.get(name), expected) for name, expected in stored.items()), default=math.inf)


def _difference(actual: NDArray[Any] | None, expected: NDArray[Any]) -> float:
    if actual is None or actual.shape != expected.shape or expected.size == 0:
        return math.inf
    wanted = expected.astype(np.float64)
    largest = float(np.abs(actual.astype(np.float64) - wanted).max())
    spread = float(wanted.max() - wanted.min()) or 1.0
    # A comparison with NaN is false, and would pass as "not too large".
    return largest / spread if math.isfinite(largest) and math.isfinite(spread) else math.inf


def _agreement(result: Result, path: Path) -> Agreement:
    try:
        return agree(result, read_reference(path))
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def write_image(path: Path, bgr: NDArray[np.uint8]) -> None:
    """Store a picture as the PNG that `read_image` gives back pixel by pixel."""
    done, content = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"{path}: OpenCV cannot encode a picture of shape {bgr.shape}")
    path.write_bytes(content.tobytes())


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a golden picture.

    Raises:
        BundleError: It is no PNG, or larger than any camera's picture.
    """
    content = _read_bounded(path, MAX_ARRAY_BYTES)
    # Width and height stand at a fixed place (RFC 2083), so a picture is measured before it takes memory.
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:_PNG_HEADER], "big")
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or not 0 < width * height <= MAX_PIXELS:
        raise BundleError(f"{path}: not a PNG picture of at most {MAX_PIXELS} pixels")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise BundleError(f"{path}: a damaged PNG picture")
    return np.asarray(picture, np.uint8)


def write_outputs(path: Path, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Store raw outputs as an npz whose bytes depend on names and values alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(outputs):
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(outputs[name]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=9)


def read_outputs(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_outputs` wrote.

    Raises:
        BundleError: It is something else, or unreasonably large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_ARRAY_BYTES:
                raise BundleError(f"{path}: more than {MAX_ENTRIES} outputs or {MAX_ARRAY_BYTES} bytes")
            return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    except BundleError:
        raise
    except Exception as error:  # zipfile, its codecs and NumPy have no common class for what may be wrong with a file
        raise BundleError(f"{path}: not golden outputs: {error}") from error


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as stream:
        # One byte more than claimed is enough to find a lie.
        content = stream.read(entry.file_size + 1)
    buffer = io.BytesIO(content)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("an array of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    # NumPy takes the memory that the header claims before it reads, so the claim is checked against what is there.
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - buffer.tell():
        raise ValueError("an array that is not as long as it claims")
    return np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))


def write_reference(path: Path, result: Result, labels: tuple[str, ...]) -> None:
    """Store the float model's decoded result."""
    path.write_text(json.dumps(to_json(result, labels), sort_keys=True, separators=(",", ":")), encoding="utf-8")


def read_reference(path: Path) -> Result:
    """Read what `write_reference` wrote.

    Raises:
        BundleError: It is something else.
    """
    try:
        return from_json(json.loads(_read_bounded(path, MAX_REFERENCE_BYTES)))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: not a golden reference: {error}") from error


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise BundleError(f"{path}: more than {limit} bytes")
    return content
