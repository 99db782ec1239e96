"""What a swap cost the camera: the frames that nobody read because of it.

The time counted goes from the start of loading to one second after the swap. A loop that is too slow for its camera
always drops some frames; only those beyond the steady rate of the minute before are the swap's.
"""

import math
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent.loop.inbox import Counts
from agent.loop.protocol import SwappedPush
from agent.loop.statistics import percentile

STEADY_SPAN_S: Final = 60.0
AFTER_SWAP_S: Final = 1.0
MOST_LATENCIES: Final = 100_000


def drop_rate(before: Counts, after: Counts) -> float:
    """Return the share of captured frames between two counts that nobody read; 0 where none was captured."""
    captured = after.captured - before.captured
    return (after.dropped - before.dropped) / captured if captured > 0 else 0.0


def dropped_beyond(steady_rate: float, captured: int, dropped: int) -> int:
    """Return the frames dropped beyond the steady rate, to the nearest whole frame, halves up."""
    return max(0, math.floor(dropped - steady_rate * captured + 0.5))


class History:
    """The counts of the last minute, noted once a second by one thread and read by another."""

    def __init__(self, span_s: float = STEADY_SPAN_S) -> None:
        self._lock = threading.Lock()
        self._span_s = span_s
        self._notes: deque[tuple[float, Counts]] = deque()

    def note(self, now_s: float, counts: Counts) -> None:
        """Keep the counts of now, unless the last note is younger than a second."""
        with self._lock:
            if self._notes and now_s - self._notes[-1][0] < 1.0:
                return
            self._notes.append((now_s, counts))
            while now_s - self._notes[0][0] > self._span_s:
                self._notes.popleft()

    def steady_rate(self, counts: Counts) -> float:
        """Return the drop rate of the last minute, given the counts of now."""
        with self._lock:
            return drop_rate(self._notes[0][1], counts) if self._notes else 0.0


@dataclass(slots=True)
class SwapAccount:
    """One swap that is being watched. The inference thread adds; begin and end are told by whoever does them."""

    began_at: Counts
    steady_rate: float
    back: bool = False
    load_ms: float = 0.0
    ends_at_s: float | None = None
    digest: str | None = None
    previous: str | None = None
    _latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_LATENCIES))

    def add(self, latency_ms: float) -> None:
        """Count one inferred frame."""
        self._latencies_ms.append(latency_ms)

    def swapped(self, now_s: float, digest: str | None, previous: str | None) -> None:
        """Take down that the new model runs now."""
        self.ends_at_s = now_s + AFTER_SWAP_S
        self.digest, self.previous = digest, previous

    def over(self, now_s: float) -> bool:
        """Tell whether the last second has passed."""
        return self.ends_at_s is not None and now_s >= self.ends_at_s

    def close(self, counts: Counts) -> SwappedPush:
        """Return the figures."""
        latencies = list(self._latencies_ms)
        captured = counts.captured - self.began_at.captured
        dropped = counts.dropped - self.began_at.dropped
        return SwappedPush(
            digest=self.digest,
            previous=self.previous,
            load_ms=self.load_ms,
            frames=len(latencies),
            dropped=dropped,
            dropped_by_swap=dropped_beyond(self.steady_rate, captured, dropped),
            p99_ms=percentile(latencies, 0.99) or 0.0,
            back=self.back,
        )
