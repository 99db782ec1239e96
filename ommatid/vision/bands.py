"""Decide whether a signal has left its band, and for long enough to be a fault."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.signals import SIGNALS

RECENT: Final = 10
ENOUGH: Final = 8
"""8 of the last 10 frames: found dimming to 0.6 and a blur of 1.5 pixels in 8 frames on three real clips, and left
single flashes and passing objects alone."""
LEARNED_SIGMAS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Band:
    """The values of one signal that are no fault, on the scale on which it is judged."""

    low: float
    high: float


def training_bands(profile: ReferenceProfile) -> dict[str, Band]:
    """Return what the training images span: 1st to 99th percentile, widened by the practical-effect floor."""
    return {
        name: Band(
            rule.judged(profile.signals[name].p1) - rule.effect, rule.judged(profile.signals[name].p99) + rule.effect
        )
        for name, rule in SIGNALS.items()
        if rule.is_judged and name in profile.signals
    }


def learned_band(name: str, values: list[float]) -> Band:
    """Return the band of a camera's own values: median +- max(5 robust sigmas, effect floor).

    The sigma is 1.4826 times the median absolute deviation, which a few odd frames do not move.
    Source: F. R. Hampel, "The influence curve and its role in robust estimation", 1974.
    """
    rule = SIGNALS[name]
    judged = np.array([rule.judged(value) for value in values], np.float64)
    centre = float(np.median(judged))
    sigma = 1.4826 * float(np.median(np.abs(judged - centre)))
    half = max(LEARNED_SIGMAS * sigma, rule.effect)
    return Band(centre - half, centre + half)


def faults(bands: Mapping[str, Band], signals: Mapping[str, float]) -> frozenset[str]:
    """Return the reasons why one frame is out of its bands; a missing signal is no fault."""
    found = set()
    for name, band in bands.items():
        if name not in signals:
            continue
        rule, value = SIGNALS[name], SIGNALS[name].judged(signals[name])
        if value < band.low and rule.low:
            found.add(rule.low)
        if value > band.high and rule.high:
            found.add(rule.high)
    return frozenset(found)


class FastLayer:
    """Find a fault in seconds: a reason counts when 8 of the last 10 frames had it."""

    def __init__(self) -> None:
        self._recent: deque[frozenset[str]] = deque(maxlen=RECENT)

    def add(self, reasons: frozenset[str]) -> tuple[str, ...]:
        """Take one frame's reasons; return those that last, sorted."""
        self._recent.append(reasons)
        candidates = set().union(*self._recent)
        return tuple(sorted(reason for reason in candidates if self._count(reason) >= ENOUGH))

    def _count(self, reason: str) -> int:
        return sum(reason in reasons for reasons in self._recent)
