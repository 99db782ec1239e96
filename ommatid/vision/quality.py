"""Judge each frame: is the camera well, and does it show what the model was trained for?

Two references for two questions. The bundle's profile: is this camera inside the range that the model has seen? The
camera's own baseline: has this camera changed? A frame that fails is flagged, not skipped. What cannot be judged says
`learning` or `unsupported`; neither is ever `ok`. docs/quality.md explains every signal.

A moved camera is not noticed by these signals; that needs a comparison of views, which is not here yet.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ommatid.vision.bands import FastLayer, faults, training_bands
from ommatid.vision.baseline import CameraBaseline
from ommatid.vision.frame import Frame
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.signals import Measurement, SignalMeter

FROZEN_FRAMES: Final = 10
FROZEN_S: Final = 5.0
"""Healthy compressed video repeats a frame now and then (0.6 % of one clip, two in a row): both must be exceeded."""
SHARE_FRAMES: Final = 256
SHARE_EVIDENCE: Final = 50
LOST_TILES: Final = 2
"""One tile alone may hide behind something that was put there."""


class QualityState(StrEnum):
    """What is known of a check, or of a frame."""

    OK = "ok"
    FLAGGED = "flagged"
    LEARNING = "learning"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was found of one frame.

    state: of all checks together: one flagged flags it, one learning keeps it from being ok.
    checks: state of each check: training, camera, tiles, frozen, resolution.
    reasons: why it is flagged, such as too_dark, blurred, frozen; sorted, empty when it is not.
    signals: the numbers behind it; `ommatid.vision.signals.SIGNALS` says what each means.
    outside: the signals outside the training images' p1-p99 in this very frame.
    """

    state: QualityState
    checks: Mapping[str, QualityState]
    reasons: tuple[str, ...]
    signals: Mapping[str, float]
    outside: tuple[str, ...]


class QualityChecks:
    """Judge the frames of one camera, in order. One thread at a time."""

    def __init__(
        self,
        reference: ReferenceProfile | None = None,
        *,
        baseline: CameraBaseline | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Judge against a bundle's profile, the camera's own baseline, and the model's input (width, height)."""
        self._reference = reference
        self._training_bands = training_bands(reference) if reference else {}
        self._baseline = baseline if baseline is not None else CameraBaseline()
        self._input_size = input_size
        self._meter = SignalMeter()
        self._training_layer, self._camera_layer, self._tile_layer = FastLayer(), FastLayer(), FastLayer()
        self._outside: deque[tuple[str, ...]] = deque(maxlen=SHARE_FRAMES)
        self._same_frames = 1
        self._same_since_s = 0.0

    def inspect(self, frame: Frame) -> QualityReport:
        """Measure and judge the next frame of this camera."""
        measured = self._meter.measure(frame.bgr)
        now_s = frame.captured_ns / 1e9
        outside = self._outside_training(measured)
        self._outside.append(outside)
        found = {
            "training": self._training(measured),
            "frozen": self._frozen(measured, now_s),
            "resolution": self._resolution(frame),
        }
        signals = dict(measured.signals)
        found |= self._camera(measured, signals, now_s, frozen=bool(found["frozen"][1]))
        checks = {name: state for name, (state, _) in found.items()}
        reasons = sorted({reason for _, given in found.values() for reason in given})
        return QualityReport(overall(checks), checks, tuple(reasons), signals, outside)

    def training_shares(self) -> dict[str, float] | None:
        """Return, for each signal, the share of recent frames outside the training images' p1-p99.

        None means not enough evidence: no profile, or fewer than 50 frames.
        """
        if self._reference is None or len(self._outside) < SHARE_EVIDENCE:
            return None
        total = len(self._outside)
        return {name: sum(name in names for names in self._outside) / total for name in self._training_bands}

    def _outside_training(self, measured: Measurement) -> tuple[str, ...]:
        if self._reference is None:
            return ()
        profiles = self._reference.signals
        return tuple(
            name
            for name in self._training_bands
            if name in measured.signals and not profiles[name].p1 <= measured.signals[name] <= profiles[name].p99
        )

    def _training(self, measured: Measurement) -> tuple[QualityState, tuple[str, ...]]:
        if not self._training_bands:
            return QualityState.UNSUPPORTED, ()
        return _judged(self._training_layer.add(faults(self._training_bands, measured.signals)))

    def _camera(
        self, measured: Measurement, signals: dict[str, float], now_s: float, *, frozen: bool
    ) -> dict[str, tuple[QualityState, tuple[str, ...]]]:
        baseline = self._baseline
        if not baseline.learned:
            if not frozen:
                baseline.learn(measured, now_s)
            return {"camera": (QualityState.LEARNING, ()), "tiles": (QualityState.LEARNING, ())}
        camera = _judged(self._camera_layer.add(faults(baseline.bands, measured.signals)))
        if not baseline.tiles_supported:
            return {"camera": camera, "tiles": (QualityState.UNSUPPORTED, ())}
        lost = baseline.tiles_lost(measured.tiles)
        signals["tiles_lost"] = float(lost)
        partly = frozenset({"view_partly_lost"} if lost >= LOST_TILES else ())
        return {"camera": camera, "tiles": _judged(self._tile_layer.add(partly))}

    def _frozen(self, measured: Measurement, now_s: float) -> tuple[QualityState, tuple[str, ...]]:
        if measured.signals.get("change") == 0:
            self._same_frames += 1
        else:
            self._same_frames, self._same_since_s = 1, now_s
        lasting = self._same_frames >= FROZEN_FRAMES and now_s - self._same_since_s >= FROZEN_S
        return _judged(("frozen",) if lasting else ())

    def _resolution(self, frame: Frame) -> tuple[QualityState, tuple[str, ...]]:
        if self._input_size is None:
            return QualityState.UNSUPPORTED, ()
        too_small = frame.width < self._input_size[0] or frame.height < self._input_size[1]
        return _judged(("low_resolution",) if too_small else ())


def overall(checks: Mapping[str, QualityState]) -> QualityState:
    """Return the state of a frame: `ok` only where a reference was there to judge it by, and found no fault."""
    states = set(checks.values())
    for state in (QualityState.FLAGGED, QualityState.LEARNING):
        if state in states:
            return state
    references = {checks[name] for name in ("training", "camera")}
    return QualityState.OK if QualityState.OK in references else QualityState.UNSUPPORTED


def _judged(reasons: tuple[str, ...]) -> tuple[QualityState, tuple[str, ...]]:
    return (QualityState.FLAGGED if reasons else QualityState.OK), reasons
