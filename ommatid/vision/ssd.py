"""Decode the raw heads of an SSD: offsets to fixed anchors, and one score a class.

Sources: W. Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2; the anchor rule is the one of
MediaPipe's SsdAnchorsCalculator, the decoding that of its TfLiteTensorsToDetectionsCalculator (one class an anchor,
the likeliest; exponential sizes).
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ommatid.vision.nms import suppress
from ommatid.vision.resize import Transform
from ommatid.vision.results import Detections

_FARTHEST: Final = 1e4
"""A centre is at most this many anchors away: far outside any picture, and no product overflows."""
_LARGEST_LOG_SIZE: Final = math.log(1000 / 16)
"""A box is at most 62.5 times its anchor, so that no exponential overflows. Source: torchvision's BoxCoder."""


@dataclass(frozen=True, slots=True)
class SsdAnchors:
    """The anchor rule; the fields mean what the bundle's manifest says of them."""

    strides: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    minimum_scale: float = 0.2
    maximum_scale: float = 0.95
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 0.3333)
    interpolated_ratio: float = 1.0
    reduce_lowest_layer: bool = True


@dataclass(frozen=True, slots=True)
class SsdDecode:
    """Which outputs are the heads, and how they are read."""

    boxes: str
    scores: str
    anchors: SsdAnchors = SsdAnchors()
    box_scale: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    background: int | None = 0


def make_anchors(rule: SsdAnchors, width: int, height: int) -> NDArray[np.float32]:
    """Return every anchor as (cy, cx, h, w) in shares of the input, float32 (n, 4), in the order of the heads."""
    layers = []
    done = 0
    while done < len(rule.strides):
        stride = rule.strides[done]
        sizes: list[tuple[float, float]] = []
        # Neighbouring layers of one stride share their cells: all their anchors of a cell stand together.
        while done < len(rule.strides) and rule.strides[done] == stride:
            sizes += _sizes(rule, done)
            done += 1
        layers.append(_grid(math.ceil(height / stride), math.ceil(width / stride), np.array(sizes, np.float32)))
    return np.concatenate(layers)


def _scale(rule: SsdAnchors, layer: int) -> float:
    count = len(rule.strides)
    if count == 1:
        return (rule.minimum_scale + rule.maximum_scale) / 2
    return rule.minimum_scale + (rule.maximum_scale - rule.minimum_scale) * layer / (count - 1)


def _sizes(rule: SsdAnchors, layer: int) -> list[tuple[float, float]]:
    """Return (height, width) of the anchors of one cell of a layer."""
    scale = _scale(rule, layer)
    if layer == 0 and rule.reduce_lowest_layer:
        pairs = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
    else:
        pairs = [(scale, ratio) for ratio in rule.aspect_ratios]
        if rule.interpolated_ratio > 0:
            following = 1.0 if layer == len(rule.strides) - 1 else _scale(rule, layer + 1)
            pairs.append((math.sqrt(scale * following), rule.interpolated_ratio))
    return [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for size, ratio in pairs]


def _grid(rows: int, columns: int, sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    anchors = np.empty((rows, columns, len(sizes), 4), np.float32)
    anchors[..., 0] = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None, None]
    anchors[..., 1] = ((np.arange(columns, dtype=np.float32) + 0.5) / columns)[None, :, None]
    anchors[..., 2:] = sizes
    return anchors.reshape(-1, 4)


class SsdDecoder:
    """Turn the two heads into detections; the anchors are made once."""

    def __init__(
        self,
        decode: SsdDecode,
        *,
        width: int,
        height: int,
        score_threshold: float,
        iou_threshold: float,
        max_detections: int,
    ) -> None:
        """Make the anchors of an input of `width` x `height` pixels."""
        self._decode = decode
        self._size = np.array([width, height] * 2, np.float32)
        self._score_threshold = score_threshold
        self._iou_threshold = iou_threshold
        self._limit = max_detections
        self.anchors = make_anchors(decode.anchors, width, height)
        self._box_scale = np.array(decode.box_scale, np.float32)

    def decode(self, boxes: NDArray[np.float32], scores: NDArray[np.float32], transform: Transform) -> Detections:
        """Return what the heads of one frame say.

        Args:
            boxes: Offsets (cy, cx, h, w) to the anchors, shape (1, anchors, 4).
            scores: One value a class, shape (1, anchors, classes), before the activation.
            transform: How the frame went into the input.

        Raises:
            ValueError: A head has another shape, or a value that is no finite number.
        """
        count = len(self.anchors)
        if boxes.shape != (1, count, 4) or scores.ndim != 3 or scores.shape[:2] != (1, count):  # noqa: PLR2004
            raise ValueError(f"heads {boxes.shape} and {scores.shape} do not fit {count} anchors")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("a head holds a value that is no finite number")
        if self._decode.background is not None and self._decode.background >= scores.shape[2]:
            raise ValueError(f"no background class {self._decode.background} among {scores.shape[2]}")
        class_id, confidence = best_class(scores[0], self._decode.activation, self._decode.background)
        candidates = np.flatnonzero(confidence >= self._score_threshold)
        xyxy = transform.boxes_to_frame(self._boxes(boxes[0, candidates], candidates))
        confidence, class_id = confidence[candidates], class_id[candidates]
        kept = suppress(xyxy, confidence, class_id, iou_threshold=self._iou_threshold, limit=self._limit)
        return Detections(xyxy[kept], confidence[kept], class_id[kept])

    def _boxes(self, offsets: NDArray[np.float32], candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the candidates' boxes as (x1, y1, x2, y2) in pixels of the input."""
        anchors = self.anchors[candidates]
        scaled = offsets.astype(np.float32) / self._box_scale
        centre = np.clip(scaled[:, :2], -_FARTHEST, _FARTHEST) * anchors[:, 2:] + anchors[:, :2]
        half = np.exp(np.minimum(scaled[:, 2:], np.float32(_LARGEST_LOG_SIZE))) * anchors[:, 2:] / np.float32(2)
        yxyx = np.concatenate([centre - half, centre + half], axis=1)
        return np.asarray(yxyx[:, [1, 0, 3, 2]] * self._size, np.float32)


def best_class(
    scores: NDArray[np.float32], activation: Literal["sigmoid", "softmax", "none"], background: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each row's likeliest class that is not the background, and its confidence 0-1."""
    rows = np.arange(len(scores))
    visible = np.array(scores, np.float32)
    if background is not None:
        visible[:, background] = -np.inf
    class_id = visible.argmax(axis=1).astype(np.int32)
    best = visible[rows, class_id]
    if activation == "sigmoid":
        confidence = 1 / (1 + np.exp(-np.clip(best, -80, 80)))
    elif activation == "softmax":
        peak = scores.max(axis=1).astype(np.float64)
        confidence = np.exp(best - peak) / np.exp(scores - peak[:, None]).sum(axis=1)
    else:
        confidence = best
    return class_id, np.clip(confidence, 0, 1).astype(np.float32)
