"""Read one vector of class scores."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ommatid.vision.results import Classification


@dataclass(frozen=True, slots=True)
class ClassificationDecode:
    """Which output holds the scores, and how they are read."""

    scores: str
    activation: Literal["softmax", "none"] = "softmax"
    top_k: int = 5


def classify(scores: NDArray[np.float32], activation: Literal["softmax", "none"], top_k: int) -> Classification:
    """Return the `top_k` likeliest classes; equal scores keep the order of the labels.

    Args:
        scores: Shape (1, classes), before the activation.
        activation: `none` where the graph itself ends in a softmax.
        top_k: How many classes to return at most.

    Raises:
        ValueError: The scores have another shape, or a value that is no finite number.
    """
    if scores.ndim != 2 or scores.shape[0] != 1 or scores.shape[1] == 0:  # noqa: PLR2004 - one row of classes
        raise ValueError(f"scores of shape {scores.shape}, not (1, classes)")
    if not np.isfinite(scores).all():
        raise ValueError("the scores hold a value that is no finite number")
    row = scores[0].astype(np.float64)  # the difference of two float32 may be larger than any float32
    if activation == "softmax":
        row = np.exp(row - row.max())
        row /= row.sum()
    class_id = np.argsort(-row, kind="stable")[:top_k].astype(np.int32)
    return Classification(np.clip(row[class_id], 0, 1).astype(np.float32), class_id)
