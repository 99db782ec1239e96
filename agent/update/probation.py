"""Watch a new model on real frames, beside what the old one did on the frames before."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

KEPT_FRAMES: Final = 300
"""Frames of the old model that the new one is compared with: some ten seconds to a minute of video."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One frame as the loop reports it."""

    digest: str | None
    latency_ms: float
    objects: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen since the probation began; latencies are None before the first frame.

    saturated: frames with as many objects as the manifest allows, which is what noise looks like.
    base_*: the same of the old model, over its last frames; None or 0 when there was none.
    base_presence: share of those frames in which the old model found anything.
    """

    seconds: float = 0.0
    frames: int = 0
    errors: int = 0
    last_error: str | None = None
    saturated: int = 0
    with_objects: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    base_frames: int = 0
    base_p50_ms: float | None = None
    base_p99_ms: float | None = None
    base_presence: float = 0.0

    @property
    def figures(self) -> dict[str, float]:
        """Return what is reported of a probation."""
        named = {
            "probation_s": self.seconds,
            "probation_frames": float(self.frames),
            "probation_errors": float(self.errors),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "base_p50_ms": self.base_p50_ms,
            "base_p99_ms": self.base_p99_ms,
        }
        return {name: round(value, 3) for name, value in named.items() if value is not None}


class Watch:
    """Counts frames by model. `observe` may be called from any thread, for every frame, always."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base: deque[Sight] = deque(maxlen=KEPT_FRAMES)
        self._digest: str | None = None
        self._began_s = 0.0
        self._limit = 0
        self._seen: deque[Sight] = deque(maxlen=KEPT_FRAMES)
        self._frames = self._errors = self._saturated = self._with_objects = 0
        self._last_error: str | None = None

    def observe(self, sight: Sight) -> None:
        """Count one frame: for the model on probation, or as what is usual."""
        with self._lock:
            if sight.digest is None or sight.digest != self._digest:
                if sight.error is None and sight.digest is not None:
                    self._base.append(sight)
                return
            self._frames += 1
            if sight.error is not None:
                self._errors += 1
                self._last_error = sight.error
                return
            self._seen.append(sight)
            self._with_objects += sight.objects > 0
            self._saturated += 0 < self._limit <= sight.objects

    def begin(self, digest: str, now_s: float, max_objects: int) -> None:
        """Start to count for `digest`; what was seen of it before is forgotten."""
        with self._lock:
            self._digest, self._began_s, self._limit = digest, now_s, max_objects
            self._base = deque((sight for sight in self._base if sight.digest != digest), maxlen=KEPT_FRAMES)
            self._seen.clear()
            self._frames = self._errors = self._saturated = self._with_objects = 0
            self._last_error = None

    def end(self) -> None:
        """Stop to count: all that comes is usual again."""
        with self._lock:
            self._digest = None
            self._base.clear()

    def watched(self, digest: str, now_s: float) -> Watched:
        """Return what was seen of `digest`; nothing when it is not on probation here."""
        with self._lock:
            if digest != self._digest:
                return Watched()
            seen = [sight.latency_ms for sight in self._seen]
            base = [sight.latency_ms for sight in self._base]
            return Watched(
                seconds=now_s - self._began_s,
                frames=self._frames,
                errors=self._errors,
                last_error=self._last_error,
                saturated=self._saturated,
                with_objects=self._with_objects,
                p50_ms=_quantile(seen, 0.5),
                p99_ms=_quantile(seen, 0.99),
                base_frames=len(base),
                base_p50_ms=_quantile(base, 0.5),
                base_p99_ms=_quantile(base, 0.99),
                base_presence=sum(sight.objects > 0 for sight in self._base) / len(base) if base else 0.0,
            )

    def watches(self, digest: str) -> bool:
        """Tell whether `digest` is on probation here."""
        with self._lock:
            return digest == self._digest


def _quantile(values: list[float], share: float) -> float | None:
    """Return the nearest-rank quantile."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
