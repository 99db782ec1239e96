"""The smallest valid manifest and bundle, for tests of the contract alone: no model, no numpy, no runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ommatid.contract.bundle import write_bundle
from ommatid.contract.digests import sha256_bytes
from ommatid.contract.manifest import (
    BundleFile,
    ClassificationDecode,
    Compatible,
    Evidence,
    EvidenceStep,
    Golden,
    GoldenSample,
    InputSpec,
    Manifest,
    Provenance,
    RuntimeSpec,
    Task,
)

CONTENT: Final[Mapping[str, bytes]] = {
    "model.onnx": b"no model, but bytes enough: " + bytes(range(256)) * 3,
    "labels.txt": b"cat\ndog\n",
    "golden/0.png": b"a picture",
    "golden/0.npz": b"its outputs",
    "golden/0.json": b"{}",
    "reference.json": b"",
}


def small_manifest(content: Mapping[str, bytes] = CONTENT) -> Manifest:
    """Return a manifest of these files; the model is `model.onnx`."""
    return Manifest(
        name="detector",
        version="1.0",
        target="int8-arm",
        runtime=RuntimeSpec(format="onnx", minimum_version="1.20", model="model.onnx"),
        compatible=Compatible(arch=("aarch64", "x86_64"), memory_bytes=1000),
        input=InputSpec(
            name="image", shape=(1, 32, 32, 3), dtype="uint8", layout="NHWC", color="rgb", resize="stretch"
        ),
        task=Task(kind="classification", decode=ClassificationDecode(scores="scores"), labels="labels.txt"),
        golden=Golden(
            samples=(GoldenSample(image="golden/0.png", outputs="golden/0.npz", reference="golden/0.json"),),
            tolerance={"onnx": 0.01},
            minimum_agreement=0.97,
        ),
        reference="reference.json",
        evidence=Evidence(
            metric="agreement_top1",
            reference_value=1,
            steps=(EvidenceStep(step="quantize", value=0.99),),
            value=0.99,
            images=100,
            gate="passed",
            minimum_agreement=0.97,
            size_bytes=len(content["model.onnx"]),
            reference_size_bytes=4000,
        ),
        provenance=Provenance(
            source_sha256="a" * 64, validation_sha256="b" * 64, recipe_sha256="c" * 64, tools={"onnx": "1.20"}
        ),
        files=tuple(
            BundleFile(path=path, role="model", size_bytes=len(data), sha256=sha256_bytes(data))
            for path, data in content.items()
        ),
    )


def small_bundle(path: Path, content: Mapping[str, bytes] = CONTENT) -> Manifest:
    """Write the smallest bundle to `path` and return its manifest."""
    folder = path.with_suffix(".content")
    sources = {}
    for name, data in content.items():
        sources[name] = folder / name
        sources[name].parent.mkdir(parents=True, exist_ok=True)
        sources[name].write_bytes(data)
    manifest = small_manifest(content)
    write_bundle(path, manifest, sources)
    return manifest
