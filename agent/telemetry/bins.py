"""The fixed bins of each signal: 256 physical intervals that never change, so that any two windows can be added.

Bins that followed a reference or a release would make history unmergeable. A signal that needs other bins gets a new
name. The id of a specification says all: `lin:LOW:HIGH` or `log:LOW:HIGH`, 256 equal steps, the outer ones open.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

BINS: Final = 256


@dataclass(frozen=True, slots=True)
class BinSpec:
    """256 equal steps from `low` to `high`, of the value or of its logarithm."""

    scale: Literal["lin", "log"]
    low: float
    high: float

    @property
    def id(self) -> str:
        """Return the text that a histogram carries."""
        return f"{self.scale}:{self.low:g}:{self.high:g}"

    def index(self, value: float) -> int:
        """Return the bin of a value; what lies outside falls into the first or the last one."""
        if self.scale == "log":
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(BINS - 1, max(0, math.floor(share * BINS)))


_SHARE = BinSpec("lin", 0, 1)

SIGNALS: Final[dict[str, BinSpec]] = {
    "brightness": BinSpec("lin", 0, 255),
    "contrast": BinSpec("lin", 0, 128),
    "clip_low": _SHARE,
    "clip_high": _SHARE,
    "entropy": BinSpec("lin", 0, 8),
    "sharpness_fine": BinSpec("lin", -8, 2),
    "sharpness_coarse": BinSpec("lin", -8, 2),
    "noise": BinSpec("lin", -4, 4),
    "change": BinSpec("lin", 0, 64),
    "tiles_lost": BinSpec("lin", 0, 16),
    "confidence": _SHARE,
    "objects": BinSpec("lin", 0, 256),
    "latency_ms": BinSpec("log", 0.1, 10_000),
}
"""Every signal that telemetry knows. Values of other names stay on the device."""
