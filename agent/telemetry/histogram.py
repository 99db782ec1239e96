"""Count values into fixed bins, with moments that add up exactly in any order."""

import math
from typing import Final

from agent.telemetry.bins import BinSpec
from ommatid.contract.messages import Histogram

Q16: Final = 1 << 16


class Accumulator:
    """One signal over one window."""

    def __init__(self, spec: BinSpec) -> None:
        self._spec = spec
        self._counts: dict[int, int] = {}
        self._n = 0
        self._sum_q16 = 0
        self._sum_squares_q16 = 0
        self._min = math.inf
        self._max = -math.inf

    def add(self, value: float) -> None:
        """Count one value; what is not a number is left out."""
        if not math.isfinite(value):
            return
        index = self._spec.index(value)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._n += 1
        self._sum_q16 += round(value * Q16)
        self._sum_squares_q16 += round(value * value * Q16)
        self._min = min(self._min, value)
        self._max = max(self._max, value)

    def histogram(self) -> Histogram | None:
        """Return what was counted, or None when there was nothing."""
        if not self._n:
            return None
        return Histogram(
            bins=self._spec.id,
            counts=dict(sorted(self._counts.items())),
            n=self._n,
            sum_q16=self._sum_q16,
            sum_squares_q16=self._sum_squares_q16,
            min=self._min,
            max=self._max,
        )
