"""Where boxes of a frame lie in a model's input: the way back of `Transform.boxes_to_frame`, written apart from it."""

import numpy as np
from numpy.typing import NDArray

from ommatid.vision.resize import Transform


def boxes_to_input(transform: Transform, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return boxes of the original frame, float32 (n, 4), as input pixels."""
    scale = np.array([transform.scale_x, transform.scale_y] * 2, np.float32)
    return xyxy * scale + np.array([transform.left, transform.top] * 2, np.float32)
