"""Keep one box of each object: non-maximum suppression within each class."""

import cv2
import numpy as np
from numpy.typing import NDArray


def suppress(
    xyxy: NDArray[np.float32],
    confidence: NDArray[np.float32],
    class_id: NDArray[np.int32],
    *,
    iou_threshold: float,
    limit: int,
) -> NDArray[np.int64]:
    """Return the indices of the boxes to keep, the surest first, at most `limit`.

    A box goes when a surer one of its class overlaps it by more than `iou_threshold` (intersection over union).
    Equal confidences keep their order, so that one input has one answer.
    """
    if len(confidence) == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(-confidence, kind="stable")
    xywh = xyxy[order].astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), confidence[order].tolist(), class_id[order].tolist(), 0.0, iou_threshold
    )
    # OpenCV leaves out a confidence of exactly 0, which no threshold of ours lets through either.
    return np.asarray(order[np.sort(np.asarray(kept, np.int64))][:limit], np.int64)
