"""How long does it take to judge one frame? One thread, from the camera's BGR picture to the report.

    python benchmarks/quality.py [--json] [--repeats N]

CPU time of the process is counted too: on a busy machine it says more than the clock.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.vision.baseline import CameraBaseline
from ommatid.vision.frame import Frame
from ommatid.vision.quality import QualityChecks
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.signals import SignalMeter, measure

SIZES = {"vga": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
BUDGET_VGA_MS = 0.3


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a frame: by the clock, and of CPU."""

    question: str
    width: int
    height: int
    p50_ms: float
    p95_ms: float
    cpu_p50_ms: float


def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return smooth noise with detail at every scale: a stand-in for a real picture of this size."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 30, (max(2, height >> step), max(2, width >> step), 3)) for step in range(1, 7)]
    total = sum(cv2.resize(layer.astype(np.float32), (width, height)) for layer in layers)
    return np.clip(np.asarray(total) + 128, 0, 255).astype(np.uint8)


def bench(width: int, height: int, repeats: int, warm_up: int = 50) -> tuple[Timing, Timing]:
    """Time the measurement alone, and the whole judgement of a camera that has learned its baseline."""
    pictures = [picture(width, height, seed) for seed in range(4)]
    frames = [Frame(bgr, index, "bench", index * 10**8, 0.0) for index, bgr in enumerate(pictures)]
    meter = SignalMeter()
    profile = ReferenceProfile.of(measure(bgr) for bgr in pictures)
    checks = QualityChecks(profile, baseline=CameraBaseline(warm_up, 0.0), input_size=(320, 320))
    timings = []
    for question in ("measure", "judge"):
        clock, cpu = [], []
        for repeat in range(warm_up + repeats):
            frame = frames[repeat % len(frames)]
            started, cpu_started = time.perf_counter_ns(), time.process_time_ns()
            if question == "measure":
                meter.measure(frame.bgr)
            else:
                checks.inspect(frame)
            cpu.append((time.process_time_ns() - cpu_started) / 1e6)
            clock.append((time.perf_counter_ns() - started) / 1e6)
        p50, p95 = (round(float(value), 4) for value in np.percentile(clock[warm_up:], [50, 95]))
        timings.append(Timing(question, width, height, p50, p95, round(float(np.median(cpu[warm_up:])), 4)))
    return timings[0], timings[1]


def main() -> None:
    """Print the timings, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=400)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    timings = [timing for size in SIZES.values() for timing in bench(*size, options.repeats)]
    if options.json:
        document = {
            "benchmark": "quality",
            "machine": {"arch": platform.machine(), "python": platform.python_version()},
            "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
            "threads": 1,
            "warm_up": 50,
            "repeats": options.repeats,
            "budget_vga_ms": BUDGET_VGA_MS,
            "timings": [asdict(timing) for timing in timings],
        }
        print(json.dumps(document, indent=2))
        return
    for timing in timings:
        print(
            f"{timing.width}x{timing.height} {timing.question:8s} p50 {timing.p50_ms:.3f} ms"
            f"  p95 {timing.p95_ms:.3f} ms  cpu {timing.cpu_p50_ms:.3f} ms"
        )


if __name__ == "__main__":
    main()
