"""The last frames of one source in figures: rate, latency, age."""

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KEPT_FRAMES: Final = 1024
RATE_SPAN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Timing:
    """One inferred frame: when its result was there, how long that took, how old the picture was then."""

    at_s: float
    latency_ms: float
    age_ms: float


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` (0-1) of all do not exceed: the nearest-rank percentile."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def frames_per_second(times_s: Sequence[float], now_s: float) -> float:
    """Return the rate over the last 10 seconds, or since the first frame where that is shorter."""
    recent = [at_s for at_s in times_s if now_s - at_s <= RATE_SPAN_S]
    if not recent:
        return 0.0
    if len(recent) == len(times_s) and len(recent) > 1 and now_s - recent[0] < RATE_SPAN_S:
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-9)
    return len(recent) / RATE_SPAN_S


class SourceStatistics:
    """Counts since the start and timings of the last 1024 frames; one thread adds, another reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timings: deque[Timing] = deque(maxlen=KEPT_FRAMES)
        self.frames = 0
        self.errors = 0

    def add(self, timing: Timing, *, failed: bool) -> None:
        """Count one frame; of one that failed only the count is kept."""
        with self._lock:
            self.frames += 1
            if failed:
                self.errors += 1
            else:
                self._timings.append(timing)

    def timings(self) -> list[Timing]:
        """Return the last frames, oldest first."""
        with self._lock:
            return list(self._timings)
