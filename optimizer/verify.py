"""Check a bundle on this machine: its structure, every digest, and its golden samples."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ommatid.contract.bundle import unpack_bundle
from ommatid.runtime.golden import check_golden
from ommatid.runtime.model import Model


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. `passed` tells whether a device like this machine would accept the bundle."""

    bundle: Path
    files: int
    golden_samples: int
    worst_difference: float
    tolerance: float
    agreement: float
    minimum_agreement: float
    passed: bool
    summary: str


def verify(path: Path) -> Verification:
    """Unpack a bundle into a scratch folder and run its golden samples.

    Raises:
        BadInputError: There is no such file.
        BundleError: It is damaged, or its golden samples cannot be read.
        BackendError: The model cannot be loaded or run here.
    """
    with tempfile.TemporaryDirectory(prefix="optimizer-") as scratch:
        folder = Path(scratch) / "bundle"
        manifest = unpack_bundle(path, folder)
        with Model.load(folder) as model:
            verdict = check_golden(model)
    return Verification(
        bundle=path,
        files=len(manifest.files),
        golden_samples=len(verdict.samples),
        worst_difference=verdict.worst_difference,
        tolerance=verdict.tolerance,
        agreement=verdict.agreement.value,
        minimum_agreement=verdict.minimum_agreement,
        passed=verdict.passed,
        summary=verdict.describe(),
    )
