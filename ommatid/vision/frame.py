"""One picture of one source, with the moment it was taken."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture as the camera gave it.

    bgr: uint8 (height, width, 3), blue first, as OpenCV reads.
    index: number of the frame in its source, from 0; gaps are frames dropped.
    captured_ns: monotonic clock, for latency and order.
    captured_at: wall clock in seconds since 1970, for reports; may jump or be wrong.
    """

    bgr: NDArray[np.uint8]
    index: int
    source: str
    captured_ns: int
    captured_at: float

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return int(self.bgr.shape[1])

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return int(self.bgr.shape[0])
