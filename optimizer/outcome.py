"""What a build came to: the bundle that is written, and the report that is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import Evidence, EvidenceStep, Golden, Provenance
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.results import Result
from optimizer import pack
from optimizer.artifact import Artifact, LineageStep
from optimizer.images import ImageSet
from optimizer.measure import Bench
from optimizer.request import BuildRequest, recipe_sha256
from optimizer.search import Try
from optimizer.task import ResolvedTask

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
class Images:
    """The images of a build, and what those it learned from look like."""

    validation: ImageSet
    calibration: ImageSet | None
    profile: ReferenceProfile


@dataclass(frozen=True, slots=True)
class FloatModel:
    """The float model twice: as it was stated (`reference`), and with its preprocessing folded in (`folded`)."""

    reference: Artifact
    folded: Artifact
    results: list[Result]
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged build, ready to be packed and told of."""

    request: BuildRequest
    resolved: ResolvedTask
    bench: Bench
    images: Images
    float_model: FloatModel
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
            warnings=self._warnings(latencies_ms),
            seconds=round(seconds, 1),
        )

    def _warnings(self, latencies_ms: tuple[float, float]) -> tuple[str, ...]:
        own_ms, float_ms = latencies_ms
        warnings = []
        calibration = self.images.calibration
        if calibration is not None and calibration.sha256 == self.images.validation.sha256:
            warnings.append("judged on the very images that it was calibrated on: the figures flatter it")
        if self.request.target.quantized and own_ms >= float_ms:
            warnings.append(f"int8 is not faster than float on this machine ({own_ms:.1f} against {float_ms:.1f} ms)")
        if not self.passed:
            warnings.append("the gate was overridden: devices will refuse this bundle where its golden samples fail")
        return tuple(warnings)
