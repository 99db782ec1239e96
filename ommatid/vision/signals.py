"""Measure a picture: a dozen numbers that a dirty, dark, blurred or frozen camera changes.

All are taken from a grey picture of about 320 pixels, shrunk by a whole factor: shrinking by 7.5 costs six times
as much as by 6. docs/quality.md gives each formula, its source and what it was seen to find.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

FINE_WIDTH: Final = 320
TILES: Final = 4
CLIPPED: Final = 3
"""How many of the 256 levels at each end count as clipped: JPEG and limited-range video miss the last ones."""
LEAST_EDGE_ENERGY: Final = 24.0
"""Mean squared Sobel gradient that noise of one grey level gives: 2 * (4 * 1 + 2 * 4) * 1. Below it, no sharpness."""

_LEVELS: Final = np.arange(256, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one signal is read. `minimum` and `maximum` bound it, for telemetry's fixed bins; nothing is cut to them.

    low, high: the reason given when the signal leaves its band that way; None where that way is no fault.
    effect: the practical-effect floor: a smaller departure from a band is no fault, however unlikely.
    logarithmic: judged, and `effect` given, in log2(1 + value): light and contrast are ratios.
    """

    unit: str
    minimum: float
    maximum: float
    effect: float = 0.0
    low: str | None = None
    high: str | None = None
    logarithmic: bool = False

    def judged(self, value: float) -> float:
        """Return the value on the scale on which it is compared."""
        return math.log2(1 + max(value, 0.0)) if self.logarithmic else value

    @property
    def is_judged(self) -> bool:
        """Tell whether leaving a band is a fault at all."""
        return self.low is not None or self.high is not None


SIGNALS: Final[Mapping[str, SignalRule]] = {
    "brightness": SignalRule("grey level", 0, 255, 0.5, "too_dark", "too_bright", logarithmic=True),
    "contrast": SignalRule("grey level", 0, 128, 0.4, "low_contrast", "high_contrast", logarithmic=True),
    "clip_low": SignalRule("share", 0, 1, 0.1, high="shadows_clipped"),
    "clip_high": SignalRule("share", 0, 1, 0.1, high="highlights_clipped"),
    "entropy": SignalRule("bit", 0, 8, 0.5, low="little_detail"),
    "sharpness_fine": SignalRule("log ratio", -8, 2, 0.5, low="blurred"),
    "sharpness_coarse": SignalRule("log ratio", -8, 2, 0.25, low="blurred"),
    "noise": SignalRule("log ratio", -4, 4, 0.2, high="noisy"),
    "change": SignalRule("grey level", 0, 64),
    "tiles_lost": SignalRule("tiles", 0, 16),
}
"""Every signal by name. `change` and `tiles_lost` need a past, so a single picture has none of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """The signals of one picture, and its edges in 4 x 4 tiles, from left to right and top to bottom.

    A signal that this picture cannot have is missing: sharpness without edges, change without a picture before.
    tiles: float64 (16,), mean absolute Laplacian of the coarse picture.
    """

    signals: Mapping[str, float]
    tiles: NDArray[np.float64]


def measure(bgr: NDArray[np.uint8]) -> dict[str, float]:
    """Return the signals of a single picture of shape (height, width, 3)."""
    return dict(SignalMeter().measure(bgr).signals)


class SignalMeter:
    """Measure the pictures of one camera; the buffers are reused. One thread at a time."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._buffers = _Buffers(1, 1)
        self._first = True

    def measure(self, bgr: NDArray[np.uint8]) -> Measurement:
        """Return the signals of the next picture of this camera."""
        if bgr.shape != self._shape:
            self._buffers = _Buffers(bgr.shape[0], bgr.shape[1])
            self._shape = bgr.shape
            self._first = True
        buffers = self._buffers
        buffers.take(bgr)
        signals = _tones(buffers.fine)
        sharp_fine, _ = _sharpness(buffers.fine)
        sharp_coarse, laplacian = _sharpness(buffers.coarse)
        if sharp_fine is not None:
            signals["sharpness_fine"] = sharp_fine
        if sharp_coarse is not None:
            signals["sharpness_coarse"] = sharp_coarse
        if sharp_fine is not None and sharp_coarse is not None:
            signals["noise"] = sharp_fine - sharp_coarse
        if not self._first:
            signals["change"] = cv2.norm(buffers.fine, buffers.before, cv2.NORM_L1) / buffers.fine.size
        self._first = False
        return Measurement(signals, _tile_means(laplacian))


class _Buffers:
    """The grey pictures of one frame size: at full size, fine, coarse, and the fine one before."""

    def __init__(self, height: int, width: int) -> None:
        factor = max(1, round(max(height, width) / FINE_WIDTH))
        rows, columns = max(1, height // factor), max(1, width // factor)
        # What does not fill a whole block of pixels at the right and lower border is left out.
        self._cut = (slice(0, rows * factor), slice(0, columns * factor))
        self._full: NDArray[np.uint8] = np.empty((min(height, rows * factor), min(width, columns * factor)), np.uint8)
        self.fine: NDArray[np.uint8] = np.empty((rows, columns), np.uint8)
        self.before: NDArray[np.uint8] = np.empty((rows, columns), np.uint8)
        self.coarse: NDArray[np.uint8] = np.empty((max(1, rows // 2), max(1, columns // 2)), np.uint8)

    def take(self, bgr: NDArray[np.uint8]) -> None:
        """Shrink the next picture; the fine one becomes the one before."""
        self.fine, self.before = self.before, self.fine
        cv2.cvtColor(bgr[self._cut], cv2.COLOR_BGR2GRAY, dst=self._full)
        cv2.resize(self._full, self.fine.shape[::-1], dst=self.fine, interpolation=cv2.INTER_AREA)
        cv2.resize(self.fine, self.coarse.shape[::-1], dst=self.coarse, interpolation=cv2.INTER_AREA)


def _tones(grey: NDArray[np.uint8]) -> dict[str, float]:
    """Return mean, standard deviation, clipped shares and Shannon entropy, all from one histogram."""
    share = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64) / grey.size
    mean = float(share @ _LEVELS)
    variance = float(share @ (_LEVELS - mean) ** 2)
    used = share[share > 0]
    return {
        "brightness": mean,
        "contrast": math.sqrt(variance),
        "clip_low": float(share[:CLIPPED].sum()),
        "clip_high": float(share[-CLIPPED:].sum()),
        "entropy": float(-(used @ np.log2(used))),
    }


def _sharpness(grey: NDArray[np.uint8]) -> tuple[float | None, NDArray[np.int16]]:
    """Return log(Laplacian energy / gradient energy), None without edges, and the Laplacian.

    Lower is blurrier. Unlike the plain variance of the Laplacian it does not call a dim picture blurred: both
    energies grow with the square of the contrast.

    Source: fairscope/PlanktoScope issue 978.
    """
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    across, down = cv2.spatialGradient(grey)
    gradient = cv2.norm(across, cv2.NORM_L2SQR) + cv2.norm(down, cv2.NORM_L2SQR)
    if gradient < LEAST_EDGE_ENERGY * grey.size:
        return None, np.asarray(laplacian, np.int16)
    return math.log((cv2.norm(laplacian, cv2.NORM_L2SQR) + 1) / gradient), np.asarray(laplacian, np.int16)


def _tile_means(laplacian: NDArray[np.int16]) -> NDArray[np.float64]:
    tiles = cv2.resize(cv2.convertScaleAbs(laplacian).astype(np.float32), (TILES, TILES), interpolation=cv2.INTER_AREA)
    return tiles.astype(np.float64).ravel()
