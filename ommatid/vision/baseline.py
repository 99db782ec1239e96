"""Learn how one camera looks when it is well, to notice when it has changed.

A first, simple version: it learns from the first frames, one a second, and stays as it is. It knows no hour of the
day, so a camera taught at noon calls the night dark; that is why it says `learning`, never `ok`, before it has
learned, and why a profile can be thrown away and learned anew.
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ommatid.vision.bands import Band, learned_band
from ommatid.vision.signals import SIGNALS, Measurement

LEARN_FRAMES: Final = 300
LEARN_INTERVAL_S: Final = 1.0
USABLE_TILES: Final = 4
_LEAST_TILE_EDGE: Final = 2.0
"""Grey levels; below it a tile holds noise and compression, not edges."""
_STEADY: Final = 0.6
"""A tile whose 5th percentile is under this share of its median changes with what passes by, and tells nothing."""
_LOST: Final = 0.5


class CameraBaseline:
    """One camera's own bands and tiles, after it has seen enough frames."""

    def __init__(self, learn_frames: int = LEARN_FRAMES, learn_interval_s: float = LEARN_INTERVAL_S) -> None:
        """Start to learn: `learn_frames` frames, at least `learn_interval_s` seconds apart."""
        self._learn_frames = learn_frames
        self._interval_s = learn_interval_s
        self._last_s = -math.inf
        self._values: dict[str, list[float]] = {name: [] for name, rule in SIGNALS.items() if rule.is_judged}
        self._tiles: list[NDArray[np.float64]] = []
        self._tile_medians: NDArray[np.float64] | None = None
        self._usable = np.zeros(0, np.bool_)
        self.bands: Mapping[str, Band] = {}

    @property
    def learned(self) -> bool:
        """Tell whether the camera may be judged."""
        return self._tile_medians is not None

    @property
    def progress(self) -> float:
        """Return the share of frames learned, 0-1."""
        return 1.0 if self.learned else len(self._tiles) / self._learn_frames

    @property
    def tiles_supported(self) -> bool:
        """Tell whether this view has enough steady edges to notice a partly covered lens."""
        return bool(self._usable.sum() >= USABLE_TILES)

    def learn(self, measured: Measurement, now_s: float) -> None:
        """Take one frame into the baseline, unless it is learned or the last one was just now."""
        if self.learned or now_s - self._last_s < self._interval_s:
            return
        self._last_s = now_s
        self._tiles.append(measured.tiles)
        for name, values in self._values.items():
            if name in measured.signals:
                values.append(measured.signals[name])
        if len(self._tiles) >= self._learn_frames:
            self._finish()

    def tiles_lost(self, tiles: NDArray[np.float64]) -> int:
        """Return how many usable tiles lost half of their edges while the others did not.

        The comparison with the median tile makes it blind to dimming, which takes edges from all tiles alike.
        """
        if self._tile_medians is None or not self.tiles_supported:
            return 0
        ratio = tiles[self._usable] / self._tile_medians[self._usable]
        return int((ratio < _LOST * np.median(ratio)).sum())

    def _finish(self) -> None:
        tiles = np.stack(self._tiles)
        medians = np.median(tiles, axis=0)
        self._usable = (medians >= _LEAST_TILE_EDGE) & (np.percentile(tiles, 5, axis=0) >= _STEADY * medians)
        self._tile_medians = medians
        # A signal that most frames lacked, such as the sharpness of a bare wall, is not judged on this camera.
        half = len(self._tiles) / 2
        self.bands = {name: learned_band(name, values) for name, values in self._values.items() if len(values) > half}
        self._tiles.clear()
        self._values.clear()
