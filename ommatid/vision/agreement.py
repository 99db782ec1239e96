"""How far two models see the same: one measure for the optimizer's gate, the trial, and the golden samples.

Source: F1 is van Rijsbergen's F measure of equal weight (Information Retrieval, 1979), the harmonic mean of precision
and recall; boxes are matched as PASCAL VOC does (Everingham et al., "The PASCAL Visual Object Classes Challenge",
2010, section 4.2): the surest first, each to the unmatched box of its class that overlaps it most, at an
intersection over union of at least 0.5.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ommatid.vision.results import Classification, Detections, Result

MATCH_IOU: Final = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts over any number of images; add two to join them.

    both: what both saw (true positives).
    only_candidate: what the judged model alone saw (false positives).
    only_reference: what it missed (false negatives).
    """

    both: int = 0
    only_candidate: int = 0
    only_reference: int = 0
    images: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.both + other.both,
            self.only_candidate + other.only_candidate,
            self.only_reference + other.only_reference,
            self.images + other.images,
        )

    @property
    def seen(self) -> int:
        """Return how many objects the value rests on; without any it proves nothing."""
        return self.both + self.only_candidate + self.only_reference

    @property
    def value(self) -> float:
        """Return F1, 0-1; 1 where neither saw anything. For single-label classification it is the top-1 agreement."""
        total = 2 * self.both + self.only_candidate + self.only_reference
        return 2 * self.both / total if total else 1.0


def agree(candidate: Result, reference: Result) -> Agreement:
    """Compare two results of one image.

    Raises:
        ValueError: One is a detection, the other a classification.
    """
    if isinstance(candidate, Detections) and isinstance(reference, Detections):
        return _agree_on_boxes(candidate, reference)
    if isinstance(candidate, Classification) and isinstance(reference, Classification):
        return _agree_on_top(candidate, reference)
    raise ValueError("a detection and a classification cannot agree")


def iou_matrix(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union of each pair of boxes, shape (len(first), len(second))."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.prod(np.clip(right_bottom - left_top, 0, None), axis=2)
    union = _area(first)[:, None] + _area(second)[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, np.float32(1e-9)), np.float32)


def _area(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.prod(np.clip(xyxy[:, 2:] - xyxy[:, :2], 0, None), axis=1), np.float32)


def _agree_on_boxes(candidate: Detections, reference: Detections) -> Agreement:
    overlap = iou_matrix(candidate.xyxy, reference.xyxy)
    overlap[candidate.class_id[:, None] != reference.class_id[None, :]] = 0
    matched = 0
    for row in np.argsort(-candidate.confidence, kind="stable"):
        if overlap.shape[1] == 0:
            break
        best = int(overlap[row].argmax())
        if overlap[row, best] >= MATCH_IOU:
            matched += 1
            overlap[:, best] = 0
    return Agreement(matched, len(candidate) - matched, len(reference) - matched, 1)


def _agree_on_top(candidate: Classification, reference: Classification) -> Agreement:
    if len(candidate) == 0 or len(reference) == 0:
        raise ValueError("a classification without a class")
    same = int(candidate.class_id[0] == reference.class_id[0])
    return Agreement(same, 1 - same, 1 - same, 1)
