"""The manifest of a bundle: everything a device needs to know of a model, in one signed document.

A manifest is part of a signed bundle, so it refuses unknown fields; its schema number is negotiated.
docs/bundle-format.md explains each field with an example.
"""

from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ommatid.contract.digests import Sha256, canonical_json
from ommatid.errors import BundleError

SCHEMA: Final = 1
MANIFEST_NAME: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 256
MAX_FILE_BYTES: Final = 8**11 - 1  # what a plain tar header can say
MAX_GOLDEN: Final = 16

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z](?:[0-9A-Za-z.+_]{0,40}[0-9A-Za-z])?$")]
"""No hyphen: NAME-VERSION-TARGET.bundle splits from the right place."""
TargetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$", max_length=40)]
AgentVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, StringConstraints(max_length=500)]


class Signed(BaseModel):
    """A part of a signed document: frozen, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_PART = "[A-Za-z0-9_][A-Za-z0-9._-]*"
FilePath = Annotated[str, StringConstraints(pattern=rf"^{_PART}(?:/{_PART}){{0,3}}$", max_length=100)]
"""A relative path in plain ASCII without `.` or `..` parts; at most 100 bytes, so it fits a plain tar header."""


class BundleFile(Signed):
    """One file of the bundle."""

    path: FilePath
    role: Literal["model", "weights", "labels", "golden", "reference", "report"]
    size_bytes: NonNegativeInt = Field(le=MAX_FILE_BYTES)
    sha256: Sha256


class RuntimeSpec(Signed):
    """Which runtime runs the model."""

    format: Literal["onnx", "tflite"]
    minimum_version: Text
    model: FilePath


class Compatible(Signed):
    """Where the model may run; the same facts are signed into the release."""

    arch: tuple[Literal["aarch64", "x86_64"], ...] = Field(min_length=1)
    accelerator: Literal["cpu"] = "cpu"
    memory_bytes: NonNegativeInt = Field(description="what loading and running adds at its peak, an estimate")
    minimum_agent: AgentVersion = "0.1.0"


class Normalization(Signed):
    """What the graph itself does to each pixel: (value - mean) * scale, per channel in `color` order."""

    mean: tuple[float, ...] = Field(min_length=1, max_length=4)
    scale: tuple[float, ...] = Field(min_length=1, max_length=4)


class InputSpec(Signed):
    """The one image input. The device resizes, orders the channels, and does nothing else."""

    name: Text
    shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color: Literal["rgb", "bgr", "gray"]
    resize: Literal["stretch", "letterbox"]
    pad_value: Annotated[int, Field(ge=0, le=255)] = Field(114, description="letterbox border, before normalisation")
    normalized_in_graph: Normalization | None = None


class SsdAnchors(Signed):
    """The anchor rule of TensorFlow's SSD, as MediaPipe's SsdAnchorsCalculator states it.

    Layer i of n has scale min + (max - min) * i / (n - 1); each cell has one anchor an aspect ratio and one of
    ratio `interpolated_ratio` at the geometric mean with the next scale. The lowest layer may be reduced to three.
    """

    strides: tuple[PositiveInt, ...] = (16, 32, 64, 128, 256, 512)
    minimum_scale: PositiveFloat = 0.2
    maximum_scale: PositiveFloat = 0.95
    aspect_ratios: tuple[PositiveFloat, ...] = (1.0, 2.0, 0.5, 3.0, 0.3333)
    interpolated_ratio: NonNegativeFloat = 1.0
    reduce_lowest_layer: bool = True


class SsdDecode(Signed):
    """Raw SSD heads: boxes as (cy, cx, h, w) offsets to anchors, and one score a class."""

    family: Literal["ssd"] = "ssd"
    boxes: Text = Field(description="output of shape (1, anchors, 4)")
    scores: Text = Field(description="output of shape (1, anchors, classes)")
    anchors: SsdAnchors = SsdAnchors()
    box_scale: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (10.0, 10.0, 5.0, 5.0)
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    background: NonNegativeInt | None = Field(0, description="score column that means nothing is there")


class ClassificationDecode(Signed):
    """One vector of class scores."""

    family: Literal["classification"] = "classification"
    scores: Text = Field(description="output of shape (1, classes)")
    activation: Literal["softmax", "none"] = "softmax"
    top_k: PositiveInt = 5


class Task(Signed):
    """What the outputs mean, and what is reported of them."""

    kind: Literal["classification", "detection"]
    decode: Annotated[SsdDecode | ClassificationDecode, Field(discriminator="family")]
    labels: FilePath = Field(description="UTF-8, one label a line, line i names class i")
    score_threshold: Share = 0.4
    iou_threshold: Share = 0.5
    max_detections: PositiveInt = 100


class GoldenSample(Signed):
    """One image with what this artifact gave, and what the float model found in it."""

    image: FilePath = Field(description="PNG, exactly what a camera would give: the device resizes it")
    outputs: FilePath = Field(description="npz: this artifact's raw outputs by name")
    reference: FilePath = Field(description="JSON: the float model's decoded results")


class Golden(Signed):
    """The proof that a device computes what the builder computed, and that the build still is the model."""

    samples: tuple[GoldenSample, ...] = Field(min_length=1, max_length=MAX_GOLDEN)
    tolerance: dict[Literal["onnx", "tflite"], PositiveFloat] = Field(
        description="largest allowed share of raw output range by which any output may differ, per runtime"
    )
    minimum_agreement: Share = Field(description="with the float model's results over all samples")


class EvidenceStep(Signed):
    """The metric after one step of the build."""

    step: Text
    value: float


class Evidence(Signed):
    """What was measured before this bundle was allowed to be."""

    metric: Literal["agreement_f1", "agreement_top1"]
    reference_value: float
    steps: tuple[EvidenceStep, ...]
    value: float
    images: PositiveInt
    gate: Literal["passed", "overridden"]
    minimum_agreement: Share
    size_bytes: PositiveInt = Field(description="model and weights")
    reference_size_bytes: PositiveInt
    float_layers: tuple[Text, ...] = Field((), description="layers that the search left in float")


class Provenance(Signed):
    """What this bundle was made of."""

    source_sha256: Sha256
    calibration_sha256: Sha256 | None = None
    validation_sha256: Sha256
    recipe_sha256: Sha256
    tools: dict[str, Text]


class Manifest(Signed):
    """The whole document."""

    schema_version: Literal[1] = SCHEMA
    name: ModelName
    version: Version
    target: TargetName
    runtime: RuntimeSpec
    compatible: Compatible
    input: InputSpec
    task: Task
    golden: Golden
    reference: FilePath = Field(description="JSON: quality profile of the calibration images, for drift")
    evidence: Evidence
    provenance: Provenance
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=MAX_FILES)

    @field_validator("files")
    @classmethod
    def _each_path_once(cls, files: tuple[BundleFile, ...]) -> tuple[BundleFile, ...]:
        paths = [file.path for file in files]
        lowered = {path.lower() for path in paths}
        if len(lowered) != len(paths) or MANIFEST_NAME in lowered:
            raise ValueError("two files of one path, or one called manifest.json")
        parents = {str(parent) for path in paths for parent in PurePosixPath(path.lower()).parents}
        if parents & lowered:
            raise ValueError("a path is a file and a folder at once")
        return files

    @model_validator(mode="after")
    def _every_named_file_is_listed(self) -> Self:
        listed = {file.path for file in self.files}
        named = {self.runtime.model, self.task.labels, self.reference}
        for sample in self.golden.samples:
            named |= {sample.image, sample.outputs, sample.reference}
        if missing := sorted(named - listed):
            raise ValueError(f"names files that it does not list: {', '.join(missing)}")
        return self

    @property
    def bundle_name(self) -> str:
        """Return the file name NAME-VERSION-TARGET.bundle."""
        return f"{self.name}-{self.version}-{self.target}.bundle"

    def encode(self) -> bytes:
        """Return the canonical bytes that go into the bundle."""
        return canonical_json(self.model_dump(mode="json"))


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: It is too large, not JSON, of an unknown schema, or breaks a rule; the field is named.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_NAME} has {len(content)} bytes; at most {MAX_MANIFEST_BYTES} are read")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        hint = "this bundle needs a newer agent" if place == "schema_version" else None
        raise BundleError(f"{MANIFEST_NAME}: {place}: {first['msg']}", hint=hint) from error
