"""What the device needs to know of a model, as plain dataclasses read with plain JSON.

The signed manifest was validated when the bundle was installed; the loop reads it again without pydantic, which
would cost it 10 MB and a tenth of a second.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ommatid.errors import BundleError
from ommatid.runtime.backend import Format
from ommatid.vision.classify import ClassificationDecode
from ommatid.vision.ssd import SsdAnchors, SsdDecode


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The one image input. The device resizes, orders the channels, and does nothing else.

    With dtype float32 it passes pixel values of 0-255: the graph normalises.
    """

    name: str
    shape: tuple[int, int, int, int]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color: Literal["rgb", "bgr", "gray"]
    resize: Literal["stretch", "letterbox"]
    pad_value: int = 114

    @property
    def width(self) -> int:
        """Return the input's width in pixels."""
        return self.shape[2] if self.layout == "NHWC" else self.shape[3]

    @property
    def height(self) -> int:
        """Return the input's height in pixels."""
        return self.shape[1] if self.layout == "NHWC" else self.shape[2]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the outputs mean, and what is reported of them."""

    kind: Literal["classification", "detection"]
    decode: SsdDecode | ClassificationDecode
    score_threshold: float = 0.4
    iou_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """One image with what this artifact gave, and what the float model found in it; paths of files."""

    image: Path
    outputs: Path
    reference: Path


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """The proof that comes with a model. `tolerance` is a share of each output's range, by format."""

    samples: tuple[GoldenSample, ...]
    tolerance: Mapping[str, float]
    minimum_agreement: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. What only a packed bundle has may be left out by who measures a model before packing it."""

    name: str
    format: Format
    model: Path
    input: InputSpec
    task: TaskSpec
    labels: tuple[str, ...]
    version: str = ""
    target: str = ""
    golden: GoldenSpec | None = None
    reference: Path | None = None


def load_spec(folder: Path) -> ModelSpec:
    """Read the manifest and the labels of an unpacked bundle.

    Raises:
        BundleError: A file is missing, or is not what an installed bundle holds.
    """
    path = folder / "manifest.json"
    try:
        document = json.loads(path.read_bytes())
        labels = (folder / document["task"]["labels"]).read_text(encoding="utf-8").splitlines()
        return parse_spec(document, folder, tuple(labels))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not the manifest of an installed bundle: {error!r}") from error


def parse_spec(manifest: Mapping[str, Any], folder: Path, labels: tuple[str, ...]) -> ModelSpec:
    """Return the spec of a manifest document whose files are in `folder`.

    Raises:
        KeyError, TypeError, ValueError: The document is no manifest.
    """
    if manifest["schema_version"] != 1:
        raise ValueError(f"schema {manifest['schema_version']!r} needs a newer agent")
    task = manifest["task"]
    return ModelSpec(
        name=manifest["name"],
        format=manifest["runtime"]["format"],
        model=folder / manifest["runtime"]["model"],
        input=_input(manifest["input"]),
        task=TaskSpec(
            kind=task["kind"],
            decode=_decode(task["decode"]),
            score_threshold=float(task["score_threshold"]),
            iou_threshold=float(task["iou_threshold"]),
            max_detections=int(task["max_detections"]),
        ),
        labels=labels,
        version=manifest["version"],
        target=manifest["target"],
        golden=_golden(manifest["golden"], folder),
        reference=folder / manifest["reference"],
    )


def _input(document: Mapping[str, Any]) -> InputSpec:
    batch, *rest = (int(size) for size in document["shape"])
    second, third, fourth = rest
    return InputSpec(
        name=document["name"],
        shape=(batch, second, third, fourth),
        dtype=document["dtype"],
        layout=document["layout"],
        color=document["color"],
        resize=document["resize"],
        pad_value=int(document["pad_value"]),
    )


def _decode(document: Mapping[str, Any]) -> SsdDecode | ClassificationDecode:
    fields = {name: value for name, value in document.items() if name != "family"}
    if document["family"] == "classification":
        return ClassificationDecode(**fields)
    if document["family"] != "ssd":
        raise ValueError(f"decode family {document['family']!r} needs a newer agent")
    anchors: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields["anchors"].items()
    }
    return SsdDecode(**{**fields, "anchors": SsdAnchors(**anchors), "box_scale": tuple(fields["box_scale"])})


def _golden(document: Mapping[str, Any], folder: Path) -> GoldenSpec:
    return GoldenSpec(
        samples=tuple(
            GoldenSample(folder / sample["image"], folder / sample["outputs"], folder / sample["reference"])
            for sample in document["samples"]
        ),
        tolerance={name: float(value) for name, value in document["tolerance"].items()},
        minimum_agreement=float(document["minimum_agreement"]),
    )
