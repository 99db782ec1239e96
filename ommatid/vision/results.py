"""What a model found in one frame, in the frame's own pixels, and its JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects found in one frame; row i of each array is object i, the surest first.

    xyxy: float32 (n, 4), pixels of the original frame, left-top-right-bottom.
    confidence: float32 (n,), 0-1.
    class_id: int32 (n,), index of the label.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def empty(cls) -> "Detections":
        """Return the result of a frame with nothing in it."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """The likeliest classes of one frame, the likeliest first.

    confidence: float32 (k,), 0-1.
    class_id: int32 (k,), index of the label.
    """

    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.confidence)


Result = Detections | Classification


def label_of(labels: Sequence[str], class_id: int) -> str:
    """Return the label of a class, or its number where the labels file is too short."""
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def to_json(result: Result, labels: Sequence[str]) -> dict[str, Any]:
    """Return a compact document: pixels to a tenth, confidence to four digits."""
    rows = zip(result.class_id.tolist(), result.confidence.tolist(), strict=True)
    objects: list[dict[str, Any]] = [
        {"label": label_of(labels, number), "class_id": number, "confidence": round(confidence, 4)}
        for number, confidence in rows
    ]
    if isinstance(result, Classification):
        return {"kind": "classification", "classes": objects}
    for found, box in zip(objects, result.xyxy.tolist(), strict=True):
        found["xyxy"] = [round(edge, 1) for edge in box]
    return {"kind": "detection", "objects": objects}


def from_json(document: Mapping[str, Any]) -> Result:
    """Read what `to_json` wrote.

    Raises:
        ValueError: The document is not a result.
    """
    try:
        detection = document["kind"] == "detection"
        if not detection and document["kind"] != "classification":
            raise ValueError(f"unknown kind of result: {document['kind']!r}")
        rows = document["objects" if detection else "classes"]
        confidence = np.array([row["confidence"] for row in rows], np.float32)
        class_id = np.array([row["class_id"] for row in rows], np.int32)
        if not detection:
            return Classification(confidence, class_id)
        xyxy = np.array([row["xyxy"] for row in rows], np.float32).reshape(len(rows), 4)
        return Detections(xyxy, confidence, class_id)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a result: {error!r}") from error
