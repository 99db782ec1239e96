"""Put a judged model into a bundle: golden samples, reference profile, evidence, provenance.

Nothing that depends on the moment or the machine's speed goes in: the same input gives the same bytes.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ommatid.contract.bundle import write_bundle
from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import (
    BundleFile,
    Compatible,
    Evidence,
    Golden,
    GoldenSample,
    InputSpec,
    Manifest,
    Normalization,
    Provenance,
    RuntimeSpec,
    Task,
)
from ommatid.errors import StorageError
from ommatid.runtime.golden import write_image, write_outputs, write_reference
from ommatid.runtime.model import Model
from ommatid.vision.agreement import Agreement, agree
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.results import Classification, Result
from optimizer.artifact import Artifact
from optimizer.images import Picture
from optimizer.measure import Bench
from optimizer.passes.embed import IMAGE
from optimizer.targets import Target

GOLDEN_SAMPLES: Final = 8
TOLERANCE: Final = {"U8S8": 0.05, "float": 0.005}
"""Integer kernels of other processors round differently here and there, float ones in the last digits."""
GOLDEN_ALLOWANCE: Final = 0.02
"""How much less a device may agree on the golden samples than the builder did, for the same reason."""
MINIMUM_RUNTIME: Final = "1.23"
RUNTIME_BYTES: Final = 16 * 1024 * 1024
TOOLS: Final = ("ai-edge-litert", "numpy", "onnx", "onnxruntime", "onnxslim", "opencv-python-headless", "tflite2onnx")


@dataclass(frozen=True, slots=True)
class Names:
    """What the bundle is called."""

    name: str
    version: str
    target: Target


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The golden files in the work folder, and what the artifact itself reaches on them."""

    samples: tuple[GoldenSample, ...]
    agreement: Agreement


def choose_golden(reference: Sequence[Result]) -> list[int]:
    """Return which pictures become golden: of each equal part of them the one in which the float model saw most.

    Only the float model decides, so a build cannot choose the pictures that suit it.
    """
    parts = min(GOLDEN_SAMPLES, len(reference))
    chosen = []
    for part in range(parts):
        start, end = part * len(reference) // parts, (part + 1) * len(reference) // parts
        chosen.append(max(range(start, end), key=lambda index: (_weight(reference[index]), -index)))
    return chosen


def _weight(result: Result) -> float:
    """Return how much a picture proves: the objects in it, or how sure its class is."""
    return float(result.confidence[0]) if isinstance(result, Classification) else len(result)


def write_golden(
    folder: Path, bench: Bench, artifact: Artifact, pictures: Sequence[Picture], reference: Artifact
) -> GoldenSet:
    """Write each golden picture with this artifact's outputs and the float model's result."""
    (folder / "golden").mkdir()
    samples, total = [], Agreement()
    with Model.from_spec(bench.spec(artifact)) as own, Model.from_spec(bench.spec(reference)) as float_model:
        for index, picture in enumerate(pictures):
            sample = GoldenSample(
                image=f"golden/{index}.png", outputs=f"golden/{index}.npz", reference=f"golden/{index}.json"
            )
            inference, wanted = own.infer(picture), float_model.infer(picture).result
            write_image(folder / sample.image, picture)
            write_outputs(folder / sample.outputs, inference.outputs)
            write_reference(folder / sample.reference, wanted, bench.labels)
            samples.append(sample)
            total += agree(inference.result, wanted)
    return GoldenSet(tuple(samples), total)


def golden_minimum(golden: GoldenSet, minimum_agreement: float, *, passed: bool) -> float:
    """Return what a device must reach on the golden samples.

    A build that passed the gate is asked for what it reached there, less a small allowance, and never more than the
    gate asked. One that was forced through is asked for all the gate asked: devices refuse what the gate refused.
    """
    if not passed:
        return minimum_agreement
    return round(min(minimum_agreement, max(0.0, golden.agreement.value - GOLDEN_ALLOWANCE)), 4)


def memory_bytes(model_bytes: int, bench: Bench) -> int:
    """Return an estimate of what loading and running adds: the runtime, the weights three times, 64 input pictures.

    The file is parsed and its weights are rearranged for the kernels, which at the peak is three copies. It is an
    estimate and not a measurement so that building twice gives the same bundle; docs/optimizer.md compares the two.
    """
    picture = bench.size.height * bench.size.width * bench.preprocessing.channels
    return RUNTIME_BYTES + 3 * model_bytes + 64 * picture


def write_files(folder: Path, artifact: Artifact, bench: Bench, profile: ReferenceProfile) -> None:
    """Write the model, its labels and its reference profile into the work folder."""
    (folder / "model.onnx").write_bytes(artifact.content)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in bench.labels), encoding="utf-8")
    (folder / "reference.json").write_bytes(profile.encode())


def make_manifest(
    folder: Path,
    names: Names,
    bench: Bench,
    task: Task,
    golden: Golden,
    evidence: Evidence,
    provenance: Provenance,
) -> Manifest:
    """Return the manifest of the files in the work folder."""
    source = bench.preprocessing
    return Manifest(
        name=names.name,
        version=names.version,
        target=names.target.name,
        runtime=RuntimeSpec(format="onnx", minimum_version=MINIMUM_RUNTIME, model="model.onnx"),
        compatible=Compatible(
            arch=names.target.arch, memory_bytes=memory_bytes((folder / "model.onnx").stat().st_size, bench)
        ),
        input=InputSpec(
            name=IMAGE,
            shape=(1, bench.size.height, bench.size.width, source.channels),
            dtype="uint8",
            layout="NHWC",
            color=source.color,
            resize=source.resize,
            pad_value=source.pad_value,
            normalized_in_graph=Normalization(mean=source.mean, scale=source.scale),
        ),
        task=task,
        golden=golden,
        reference="reference.json",
        evidence=evidence,
        provenance=provenance,
        files=tuple(_entry(folder, path) for path in ("model.onnx", "labels.txt", "reference.json", *_paths(golden))),
    )


def write(path: Path, manifest: Manifest, folder: Path) -> None:
    """Write the bundle; it appears whole or not at all.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    try:
        write_bundle(path, manifest, {entry.path: folder / entry.path for entry in manifest.files})
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(
            f"{path}: {'the disk is full' if full else error.strerror or error}",
            hint="free some space, or write to another disk with -o" if full else "check the folder's permissions",
        ) from error


def tool_versions() -> dict[str, str]:
    """Return the versions of everything whose behaviour shows in a bundle's bytes."""
    return {name: version(name) for name in ("ommatid", *TOOLS)}


def _paths(golden: Golden) -> list[str]:
    return [path for sample in golden.samples for path in (sample.image, sample.outputs, sample.reference)]


def _entry(folder: Path, path: str) -> BundleFile:
    file = folder / path
    role = {"model.onnx": "model", "labels.txt": "labels", "reference.json": "reference"}.get(path, "golden")
    return BundleFile.model_validate(
        {"path": path, "role": role, "size_bytes": file.stat().st_size, "sha256": sha256_file(file)}
    )
