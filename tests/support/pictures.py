"""Pictures that look like something: smooth shapes with edges at every scale, the same for the same seed."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.vision.frame import Frame


def scene(width: int = 640, height: int = 480, seed: int = 0) -> NDArray[np.uint8]:
    """Return a BGR picture of rectangles and discs over a gradient, with a little sensor noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, width, dtype=np.float32)
    picture = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2).astype(np.uint8)
    for _ in range(160):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(6, max(7, width // 12)))
        colour = tuple(int(level) for level in rng.integers(20, 235, 3))
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y), (x + size, y + size), colour, -1)
        else:
            cv2.circle(picture, (x, y), size // 2, colour, -1)
    return spoil_noise(picture, 2.0, seed)


def spoil_noise(bgr: NDArray[np.uint8], sigma: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return the picture with Gaussian noise of `sigma` grey levels."""
    noise = np.random.default_rng(seed).standard_normal(bgr.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(bgr + noise), 0, 255).astype(np.uint8)


def spoil_blur(bgr: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Return the picture out of focus by `sigma` pixels."""
    return np.asarray(cv2.GaussianBlur(bgr, (0, 0), sigma), np.uint8)


def spoil_light(bgr: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Return the picture darker or brighter by `factor`."""
    return np.asarray(cv2.convertScaleAbs(bgr, alpha=factor), np.uint8)


def frame(bgr: NDArray[np.uint8], index: int = 0, fps: float = 10.0) -> Frame:
    """Return the picture as frame `index` of a camera of `fps` frames a second."""
    return Frame(bgr, index, "test", int(index / fps * 1e9), 1.8e9 + index / fps)
