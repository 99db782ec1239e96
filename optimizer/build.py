"""The whole build: read, normalise, embed, quantize, judge, gate, pack."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import Evidence, EvidenceStep, Golden, ModelName, Provenance, Version
from ommatid.errors import BadInputError
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.resize import InputPacker, Resizer
from ommatid.vision.results import Result
from ommatid.vision.signals import measure
from optimizer import gate, graph, pack
from optimizer.artifact import Artifact, LineageStep, Pass
from optimizer.calibrate import calibrate
from optimizer.images import ImageSet, Picture, load_images
from optimizer.measure import Bench, accuracy, agreement
from optimizer.passes.embed import Embed
from optimizer.passes.importing import CheckConversion, read_model, source_format
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import Preprocessing, Size, resolve
from optimizer.progress import Steps
from optimizer.request import BuildRequest, recipe_sha256
from optimizer.search import Judgement, Try, best, search
from optimizer.task import ResolvedTask, read_decode, resolve_task, task_spec

CHECKED_PICTURES: Final = 4
PROBES: Final = 6
DIGITS: Final = 6
Metric = Literal["agreement_f1", "agreement_top1"]


@dataclass(frozen=True, slots=True)
class Step:
    """The agreement with the float model after one step of the build."""

    step: str
    value: float


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came out. Times are this machine's, and are not in the bundle."""

    bundle: Path
    sha256: str
    name: str
    version: str
    target: str
    size_bytes: int
    model_bytes: int
    float_model_bytes: int
    latency_ms: float
    float_latency_ms: float
    metric: Metric
    agreement_f1: float
    accuracy: float | None
    float_accuracy: float | None
    images: int
    objects: int
    gate: Literal["passed", "overridden"]
    float_layers: tuple[str, ...]
    golden_samples: int
    golden_agreement: float
    steps: tuple[Step, ...]
    lineage: tuple[LineageStep, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Images:
    validation: ImageSet
    calibration: ImageSet | None
    profile: ReferenceProfile


@dataclass(frozen=True, slots=True)
class _FloatModel:
    """The float model twice: as it was stated (`reference`), and with its preprocessing folded in (`folded`)."""

    reference: Artifact
    folded: Artifact
    results: list[Result]
    accuracy: float | None


def build(request: BuildRequest, steps: Steps) -> BuildReport:
    """Build one bundle.

    Raises:
        BadInputError: The model, the images or an option cannot be used.
        ConversionError: The model cannot be carried over.
        GateError: It lost too much; no bundle is written.
        StorageError: The bundle cannot be written; nothing is left behind.
    """
    started = time.perf_counter()
    output = bundle_path(request)
    stated = read_decode(request.decode)
    preprocessing, assumptions = _preprocessing(request, stated.family, stated.input)
    with tempfile.TemporaryDirectory(prefix="optimizer-") as scratch:
        with steps.step("read and normalise the model"):
            core = Normalise(request.stated.input_size)(read_model(request.model))
        size = picture_size(core)
        overrides = {
            "score_threshold": request.stated.score_threshold,
            "iou_threshold": request.stated.iou_threshold,
        }
        resolved = resolve_task(stated, core.model, size, request.labels, overrides)
        bench = Bench(Path(scratch), request.name, size, preprocessing, task_spec(resolved.task), resolved.labels)
        images = _images(request, bench, steps)
        gate.check_rule(
            request.gate,
            labelled=images.validation.labelled,
            classification=resolved.task.kind == "classification",
        )
        float_model = _float_model(request, bench, core, images.validation, steps)
        tries = _tries(request, bench, float_model, images, steps)
        metric: Metric = "agreement_f1" if resolved.task.kind == "detection" else "agreement_top1"
        choice = best(tries)
        gate.enforce(request.gate, choice, len(tries), metric, float_model.accuracy)
        baseline = float_model.folded if request.target.quantized else float_model.reference
        with steps.step("latency, in turns with the float model"):
            latency_ms, float_latency_ms = bench.latencies_ms((choice.artifact, baseline), images.validation.pictures)
        done = _Done(request, resolved, bench, images, float_model, tries, choice, metric)
        with steps.step("golden samples and bundle"):
            golden = done.write(output)
        return done.report(
            output,
            golden,
            (latency_ms, float_latency_ms),
            (*assumptions, *resolved.assumptions),
            time.perf_counter() - started,
        )


@dataclass(frozen=True, slots=True)
class _Done:
    """A judged build, ready to be packed and told of."""

    request: BuildRequest
    resolved: ResolvedTask
    bench: Bench
    images: _Images
    float_model: _FloatModel
    tries: tuple[Try, ...]
    choice: Try
    metric: Metric

    @property
    def passed(self) -> bool:
        """Tell whether the gate let it through by its own worth."""
        return self.choice.judgement.passed

    def steps(self) -> tuple[Step, ...]:
        """Return the agreement after each step, and the accuracy where labels say it."""
        steps = [Step("float model", 1.0)]
        steps += [Step(item.name, round(item.judgement.agreement.value, DIGITS)) for item in self.tries]
        for name, value in (
            ("accuracy of the float model", self.float_model.accuracy),
            ("accuracy of the build", self.choice.judgement.accuracy),
        ):
            if value is not None:
                steps.append(Step(name, round(value, DIGITS)))
        return tuple(steps)

    def write(self, output: Path) -> pack.GoldenSet:
        """Write the bundle; return its golden samples."""
        folder = self.bench.folder / "bundle"
        folder.mkdir()
        pack.write_files(folder, self.choice.artifact, self.bench, self.images.profile)
        pictures = [self.images.validation.pictures[index] for index in pack.choose_golden(self.float_model.results)]
        golden = pack.write_golden(folder, self.bench, self.choice.artifact, pictures, self.float_model.reference)
        rule = self.request.gate
        manifest = pack.make_manifest(
            folder,
            pack.Names(self.request.name, self.request.version, self.request.target),
            self.bench,
            self.resolved.task,
            Golden(
                samples=golden.samples,
                tolerance={"onnx": pack.TOLERANCE[self.request.target.scheme]},
                minimum_agreement=pack.golden_minimum(golden, rule.min_agreement, passed=self.passed),
            ),
            self._evidence(),
            self._provenance(),
        )
        pack.write(output, manifest, folder)
        return golden

    def _evidence(self) -> Evidence:
        return Evidence(
            metric=self.metric,
            reference_value=1.0,
            steps=tuple(EvidenceStep(step=step.step, value=step.value) for step in self.steps()),
            value=round(self.choice.judgement.agreement.value, DIGITS),
            images=len(self.images.validation),
            gate="passed" if self.passed else "overridden",
            minimum_agreement=self.request.gate.min_agreement,
            size_bytes=len(self.choice.artifact.content),
            reference_size_bytes=len(self.float_model.folded.content),
            float_layers=self.choice.float_layers,
        )

    def _provenance(self) -> Provenance:
        calibration = self.images.calibration
        return Provenance(
            source_sha256=self.float_model.folded.lineage[0].sha256,
            calibration_sha256=calibration.sha256 if calibration else None,
            validation_sha256=self.images.validation.sha256,
            recipe_sha256=recipe_sha256(self.request, self.bench.preprocessing, self.resolved.task),
            tools=pack.tool_versions(),
        )

    def report(
        self,
        output: Path,
        golden: pack.GoldenSet,
        latencies_ms: tuple[float, float],
        assumptions: tuple[str, ...],
        seconds: float,
    ) -> BuildReport:
        """Return what there is to tell."""
        judgement = self.choice.judgement
        return BuildReport(
            bundle=output,
            sha256=sha256_file(output),
            name=self.request.name,
            version=self.request.version,
            target=self.request.target.name,
            size_bytes=output.stat().st_size,
            model_bytes=len(self.choice.artifact.content),
            float_model_bytes=len(self.float_model.folded.content),
            latency_ms=round(latencies_ms[0], 3),
            float_latency_ms=round(latencies_ms[1], 3),
            metric=self.metric,
            agreement_f1=round(judgement.agreement.value, DIGITS),
            accuracy=judgement.accuracy,
            float_accuracy=self.float_model.accuracy,
            images=judgement.agreement.images,
            objects=judgement.agreement.seen,
            gate="passed" if self.passed else "overridden",
            float_layers=self.choice.float_layers,
            golden_samples=len(golden.samples),
            golden_agreement=round(golden.agreement.value, DIGITS),
            steps=self.steps(),
            lineage=self.choice.artifact.lineage,
            assumptions=assumptions,
            warnings=_warnings(self.request, self.passed, latencies_ms),
            seconds=round(seconds, 1),
        )


def bundle_path(request: BuildRequest) -> Path:
    """Return where the bundle goes.

    Raises:
        BadInputError: The name or version is not one, the folder is missing, or a file is there already.
    """
    for value, kind, option, hint in (
        (request.name, ModelName, "--name", "lower-case letters, digits, `.`, `_` and `-`, up to 63"),
        (request.version, Version, "--version", "letters, digits, `.`, `+` and `_`, up to 42; no hyphen"),
    ):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise BadInputError(f"{option} {value}: not a valid value", hint=hint) from None
    path = request.output
    if path.is_dir():
        path /= f"{request.name}-{request.version}-{request.target.name}.bundle"
    if not path.parent.is_dir():
        raise BadInputError(f"{path.parent}: no such folder", hint="make it, or name another with -o")
    if path.exists():
        raise BadInputError(f"{path}: exists already", hint="remove it, or choose another --version or -o")
    return path


def picture_size(core: Artifact) -> Size:
    """Return the height and width that a normalised model takes."""
    shape = graph.shape_of(graph.image_input(core.model))
    return Size(*(shape[2:4] if shape[1] in {1, 3} else shape[1:3]))


def input_tensor(bench: Bench, picture: Picture) -> NDArray[np.uint8]:
    """Return a picture as the device would hand it to the graph."""
    source = bench.preprocessing
    resizer = Resizer(source.resize, bench.size.width, bench.size.height, source.pad_value)
    shape = (1, bench.size.height, bench.size.width, source.channels)
    packer = InputPacker(shape, "uint8", "NHWC", source.color)
    return np.asarray(packer.pack(resizer.resize(picture)[0]), np.uint8).copy()


def _preprocessing(
    request: BuildRequest, family: str, stated: dict[str, object]
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Options first, then the decode file, then the family's defaults."""
    said = request.stated
    try:
        mean, scale = (
            chosen if chosen is not None else _numbers(stated.get(field))
            for chosen, field in ((said.mean, "mean"), (said.scale, "scale"))
        )
    except (TypeError, ValueError) as error:
        raise BadInputError(f"--decode {request.decode}: [input] {error}", hint="mean and scale are lists") from error
    color, resize = said.color or stated.get("color"), said.resize or stated.get("resize")
    if color not in {None, "rgb", "bgr", "gray"} or resize not in {None, "stretch", "letterbox"}:
        raise BadInputError(
            f"--decode {request.decode}: [input] color {color!r}, resize {resize!r}",
            hint="color is rgb, bgr or gray; resize is stretch or letterbox",
        )
    return resolve(family, mean=mean, scale=scale, color=color, resize=resize)  # type: ignore[arg-type]  # checked above


def _numbers(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise TypeError(f"{value!r} is not a list of numbers")
    return tuple(float(number) for number in value)


def _images(request: BuildRequest, bench: Bench, steps: Steps) -> _Images:
    if request.target.quantized and request.calibrate is None:
        raise BadInputError(
            f"--target {request.target.name} needs calibration images",
            hint="about 60 images of what the camera will see: --calibrate FOLDER or VIDEO#t=0,30",
        )
    rule, size = bench.preprocessing.resize, (bench.size.width, bench.size.height)
    measured: list[dict[str, float]] = []
    calibration = None

    def watch(picture: Picture) -> None:
        measured.append(measure(picture))

    with steps.step("read the images"):
        if request.calibrate is not None and request.target.quantized:
            calibration = load_images(request.calibrate, request.sampling, rule=rule, input_size=size, watch=watch)
        # What a model was not calibrated on, its training images are best known by what it was validated on.
        own = watch if calibration is None else _ignore
        validation = load_images(request.validate, request.sampling, rule=rule, input_size=size, watch=own)
    return _Images(validation, calibration, ReferenceProfile.of(measured))


def _ignore(picture: Picture) -> None:
    """Take no measure of a picture."""


def _float_model(request: BuildRequest, bench: Bench, core: Artifact, images: ImageSet, steps: Steps) -> _FloatModel:
    """Prove the import, put the preprocessing in, and note what the float model finds: the reference of all that follows."""
    passes: list[Pass] = [Embed(bench.preprocessing)]
    if source_format(request.model) == "tflite":
        passes.insert(0, CheckConversion(request.model, images.pictures[:CHECKED_PICTURES], bench.preprocessing))
    with steps.step("embed the preprocessing"):
        folded = core
        for each in passes:
            folded = each(folded)
        reference = Embed(bench.preprocessing, fold=False)(core)
    with steps.step("float model on the validation images", len(images)) as tick:
        results = bench.results(reference, images.pictures, tick)
    gate.check_evidence(agreement(results, results).seen, len(images))
    exact = accuracy(results, images, bench.labels) if _judged_by_labels(bench, images) else None
    return _FloatModel(reference, folded, results, exact)


def _judged_by_labels(bench: Bench, images: ImageSet) -> bool:
    return bench.task.kind == "classification" and images.labelled and set(images.labels) <= set(bench.labels)


def _tries(
    request: BuildRequest, bench: Bench, float_model: _FloatModel, images: _Images, steps: Steps
) -> tuple[Try, ...]:
    """Return every recipe that was built and judged, the float model with its preprocessing inside first."""
    validation = images.validation

    def judge(artifact: Artifact) -> Judgement:
        with steps.step("agreement on the validation images", len(validation)) as tick:
            results = bench.results(artifact, validation.pictures, tick)
        agreed = agreement(results, float_model.results)
        right = None if float_model.accuracy is None else accuracy(results, validation, bench.labels)
        figures = Judgement(agreed, right, passed=False)
        return Judgement(agreed, right, gate.judge_against(request.gate, figures, float_model.accuracy))

    if images.calibration is None:
        return (Try("preprocessing inside", float_model.folded, judge(float_model.folded)),)
    tensors = [input_tensor(bench, picture) for picture in images.calibration.pictures]
    with steps.step("calibrate", len(tensors)) as tick:
        seen = calibrate(float_model.folded.model, tensors, tick)
    return search(float_model.folded, seen, tensors[:: max(1, len(tensors) // PROBES)], judge, request.effort, steps)


def _warnings(
    request: BuildRequest,
    passed: bool,
    latencies_ms: Sequence[float],  # noqa: FBT001 - one fact among others
) -> tuple[str, ...]:
    warnings = []
    if request.target.quantized and latencies_ms[0] >= latencies_ms[1]:
        warnings.append(
            f"int8 is not faster than float on this machine ({latencies_ms[0]:.1f} against {latencies_ms[1]:.1f} ms)"
        )
    if not passed:
        warnings.append("the gate was overridden: devices will refuse this bundle where its golden samples fail")
    return tuple(warnings)
