"""Gather what the frames of one source say, and close it into a window at the end of its time or its model."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from agent.clock import Clock, rfc3339
from agent.loop.protocol import FramePush
from agent.telemetry.bins import SIGNALS
from agent.telemetry.histogram import Accumulator

MAX_CLASSES: Final = 256
"""A window stays small even with a model of thousands of labels; the rarest are then left out."""


@dataclass(slots=True)
class _Open:
    """One window that still grows."""

    digest: str | None
    started_wall_s: float
    started_monotonic_s: float
    dropped: int = 0
    frames: int = 0
    flagged: int = 0
    signals: dict[str, Accumulator] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A finished window: the digest of its model, and the fields of the report but the model."""

    digest: str | None
    fields: dict[str, Any]


class WindowBuilder:
    """The windows of one source; a window never mixes two models."""

    def __init__(self, source: str, clock: Clock, window_s: float) -> None:
        self._source = source
        self._clock = clock
        self._window_s = window_s
        self._open: _Open | None = None
        self._dropped = 0

    def add(self, frame: FramePush) -> ClosedWindow | None:
        """Count one frame; return the window that it ended, if it did."""
        closed = self.tick()
        if self._open is not None and self._open.digest != frame.digest:
            closed = self.close()
        if frame.dropped < self._dropped:  # the loop has started again, and counts from zero
            self._dropped = 0
        if self._open is None:
            self._open = _Open(frame.digest, self._clock.wall_s(), self._clock.monotonic_s())
        _count(self._open, frame)
        self._open.dropped += max(0, frame.dropped - self._dropped)
        self._dropped = frame.dropped
        return closed

    def tick(self) -> ClosedWindow | None:
        """Return the window if its time is over."""
        if self._open is None or self._clock.monotonic_s() - self._open.started_monotonic_s < self._window_s:
            return None
        return self.close()

    def close(self) -> ClosedWindow | None:
        """End the window now; return it unless it is empty."""
        window, self._open = self._open, None
        if window is None or not window.frames:
            return None
        duration_s = max(0.001, self._clock.monotonic_s() - window.started_monotonic_s)
        histograms = {name: made for name, each in window.signals.items() if (made := each.histogram()) is not None}
        return ClosedWindow(
            window.digest,
            {
                "source": self._source,
                "started_at": rfc3339(window.started_wall_s),
                "duration_s": round(duration_s, 3),
                "frames": window.frames,
                "dropped": window.dropped,
                "flagged": window.flagged,
                "signals": {name: each.model_dump() for name, each in sorted(histograms.items())},
                "classes": dict(window.classes.most_common(MAX_CLASSES)),
            },
        )


def _count(window: _Open, frame: FramePush) -> None:
    window.frames += 1
    window.flagged += bool(frame.flags)
    values = dict(frame.quality)
    if frame.error is None and frame.digest is not None:
        values |= {"latency_ms": frame.latency_ms, "objects": float(len(frame.objects))}
    for name, value in values.items():
        _add(window, name, value)
    for found in frame.objects:
        _add(window, "confidence", found.confidence)
        window.classes[found.label] += 1


def _add(window: _Open, name: str, value: float) -> None:
    spec = SIGNALS.get(name)
    if spec is None:
        return
    if name not in window.signals:
        window.signals[name] = Accumulator(spec)
    window.signals[name].add(value)
