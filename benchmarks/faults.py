"""How soon is a spoiled camera flagged, and is a healthy one left alone? A real video, spoiled by computer.

    python benchmarks/faults.py [--json]

The camera is learned on the first 400 frames of the demo's video, and judged on the others, clean and spoiled.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from report import FRAMES

from ommatid.vision.baseline import CameraBaseline
from ommatid.vision.frame import Frame
from ommatid.vision.quality import QualityChecks

LEARN = 400
PERIOD_NS = 100_000_000

Picture = NDArray[np.uint8]
Spoil = Callable[[Picture], Picture]


@dataclass(frozen=True, slots=True)
class Found:
    """When one fault was first flagged, counted from 1; and all reasons that were ever given."""

    fault: str
    first_flagged: int | None
    reasons: tuple[str, ...]


def times(factor: float) -> Spoil:
    """Dim or brighten."""
    return lambda bgr: cv2.convertScaleAbs(bgr, alpha=factor).astype(np.uint8)


def blurred(sigma: float) -> Spoil:
    """Defocus the whole picture."""
    return lambda bgr: cv2.GaussianBlur(bgr, (0, 0), sigma).astype(np.uint8)


def noisy(sigma: float) -> Spoil:
    """Add sensor noise, the same in each run."""
    rng = np.random.default_rng(7)
    return lambda bgr: np.clip(bgr + rng.normal(0, sigma, bgr.shape), 0, 255).astype(np.uint8)


def covered(share: float) -> Spoil:
    """Hold something grey before the left part of the lens."""

    def spoil(bgr: Picture) -> Picture:
        spoiled = bgr.copy()
        spoiled[:, : round(bgr.shape[1] * share)] = 90
        return spoiled

    return spoil


def half_blurred(bgr: Picture) -> Picture:
    """Smear the left half of the lens."""
    spoiled, middle = bgr.copy(), bgr.shape[1] // 2
    spoiled[:, :middle] = cv2.GaussianBlur(spoiled[:, :middle], (0, 0), 8)
    return spoiled


def frozen() -> Spoil:
    """Show the first picture for ever."""
    shown: list[Picture] = []

    def spoil(bgr: Picture) -> Picture:
        shown[:] = shown or [bgr]
        return shown[0]

    return spoil


FAULTS: dict[str, Spoil] = {
    "clean": lambda bgr: bgr,
    "dimmed to 0.85": times(0.85),
    "dimmed to 0.6": times(0.6),
    "dimmed to 0.3": times(0.3),
    "brightened 1.8": times(1.8),
    "blurred, sigma 1": blurred(1),
    "blurred, sigma 3": blurred(3),
    "noise, sigma 8": noisy(8),
    "noise, sigma 20": noisy(20),
    "a quarter covered": covered(0.25),
    "half covered": covered(0.5),
    "half of the lens blurred": half_blurred,
    "covered": times(0.02),
    "frozen": frozen(),
}


def pictures() -> list[Picture]:
    """Return every picture of the demo's video."""
    video = cv2.VideoCapture(FRAMES.partition("#")[0])
    found = []
    while (read := video.read())[0]:
        found.append(read[1].astype(np.uint8))
    return found


def judge(fault: str, spoil: Spoil, frames: Sequence[Picture]) -> Found:
    """Learn the camera, spoil it, and return when that was seen."""
    checks = QualityChecks(baseline=CameraBaseline(LEARN, 0.0))
    for index, bgr in enumerate(frames[:LEARN]):
        checks.inspect(Frame(bgr, index, "bench", index * PERIOD_NS, 0.0))
    first, reasons = None, set[str]()
    for number, bgr in enumerate(frames[LEARN:], start=1):
        index = LEARN + number - 1
        report = checks.inspect(Frame(spoil(bgr), index, "bench", index * PERIOD_NS, 0.0))
        reasons.update(report.reasons)
        if report.reasons and first is None:
            first = number
    return Found(fault, first, tuple(sorted(reasons)))


def main() -> None:
    """Print one line a fault, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    frames = pictures()
    rows = [judge(fault, spoil, frames) for fault, spoil in FAULTS.items()]
    if options.json:
        print(
            json.dumps(
                {"benchmark": "faults", "learned": LEARN, "frames": len(frames), "rows": list(map(asdict, rows))}
            )
        )
        return
    for row in rows:
        when = f"frame {row.first_flagged}" if row.first_flagged else "never"
        print(f"{row.fault:26s} {when:10s} {', '.join(row.reasons)}")


if __name__ == "__main__":
    main()
