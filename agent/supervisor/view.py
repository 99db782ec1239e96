"""What the supervisor knows of the loop: its last answer, and what the frames since say of each camera."""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

from agent.clock import Clock
from agent.loop.protocol import FramePush, SourceFigures, SourcePush, Status, SwappedPush
from ommatid.contract.messages import SourceStatus, SwapFigures

RECENT: Final = 10
FLAGGED: Final = 8
"""A camera counts as flagged when 8 of its last 10 frames are: one bad frame is no fault."""

QualityState = Literal["ok", "flagged", "learning", "unsupported"]


@dataclass(slots=True)
class _Camera:
    """The last frames of one source."""

    states: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    reasons: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=RECENT))
    brightness: float | None = None
    sharpness: float | None = None
    state: str = "starting"
    reason: str = ""


class LoopView:
    """The loop as it was last seen. All methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._cameras: dict[str, _Camera] = {}
        self._status: Status | None = None
        self._last_swap: SwappedPush | None = None
        self._last_frame_s: float | None = None

    def frame(self, frame: FramePush) -> None:
        """Take note of one frame."""
        with self._lock:
            camera = self._cameras.setdefault(frame.source, _Camera())
            camera.states.append(frame.quality_state or "unsupported")
            camera.reasons.append(frame.flags)
            camera.brightness = frame.quality.get("brightness")
            camera.sharpness = frame.quality.get("sharpness_fine")
            if frame.digest is not None and frame.error is None:
                self._last_frame_s = self._clock.monotonic_s()

    def source(self, push: SourcePush) -> bool:
        """Take note of a source's state; return whether it is another than before."""
        with self._lock:
            camera = self._cameras.setdefault(push.name, _Camera())
            changed = camera.state != push.state
            camera.state, camera.reason = push.state, push.reason
            return changed

    def swapped(self, push: SwappedPush) -> None:
        """Take note of what a swap cost."""
        with self._lock:
            self._last_swap = push

    def answered(self, status: Status | None) -> None:
        """Keep the loop's answer, or that it gave none."""
        with self._lock:
            self._status = status
            if status is not None and status.last_swap is not None:
                self._last_swap = status.last_swap

    @property
    def status(self) -> Status | None:
        """Return the loop's last answer; None while it is away."""
        return self._status

    @property
    def last_frame_age_s(self) -> float:
        """Return the seconds since a frame was inferred; infinite before the first."""
        last_s = self._last_frame_s
        return float("inf") if last_s is None else self._clock.monotonic_s() - last_s

    @property
    def all_ended(self) -> bool:
        """Tell whether every source has come to its end, or will give nothing more."""
        status = self._status
        return status is not None and bool(status.sources) and all(s.state == "ended" for s in status.sources)

    def sources(self) -> tuple[SourceStatus, ...]:
        """Return each source for the state message."""
        with self._lock:
            figures = self._status.sources if self._status is not None else ()
            return tuple(_source_status(each, self._cameras.get(each.name, _Camera())) for each in figures)

    def last_swap(self) -> SwapFigures | None:
        """Return the figures of the last swap."""
        swap = self._last_swap
        if swap is None or swap.digest is None:
            return None
        return SwapFigures(
            digest=swap.digest,
            load_ms=swap.load_ms,
            frames=swap.frames,
            dropped=swap.dropped,
            dropped_by_swap=swap.dropped_by_swap,
            p99_ms=swap.p99_ms,
        )


def judged(states: list[str]) -> QualityState:
    """Return the quality of a camera from the states of its last frames."""
    if states.count("flagged") >= FLAGGED:
        return "flagged"
    calm = [state for state in states if state != "flagged"]
    last = calm[-1] if calm else "learning"
    return cast("QualityState", last) if last in get_args(QualityState) else "unsupported"


def lasting(reasons: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the reasons that most of the last frames give."""
    names = sorted({name for each in reasons for name in each})
    return tuple(name for name in names if sum(name in each for each in reasons) >= FLAGGED)


def _source_status(figures: SourceFigures, camera: _Camera) -> SourceStatus:
    quality = judged(list(camera.states))
    return SourceStatus(
        name=figures.name,
        state=figures.state,
        fps=round(figures.fps, 2),
        frames=figures.frames,
        dropped=figures.dropped,
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
        quality=quality,
        quality_reasons=lasting(list(camera.reasons)) if quality == "flagged" else (),
        brightness=camera.brightness,
        sharpness=camera.sharpness,
    )
