"""Results cross a process border as JSON and come back."""

import json
from typing import Any

import numpy as np
import pytest

from ommatid.vision.results import Classification, Detections, from_json, to_json

LABELS = ("background", "person", "car")


def detections() -> Detections:
    return Detections(
        np.array([[1.25, 2, 30, 40], [5, 6, 7, 8]], np.float32),
        np.array([0.91239, 0.5], np.float32),
        np.array([2, 1], np.int32),
    )


def test_detections_survive_json() -> None:
    result = detections()

    text = json.dumps(to_json(result, LABELS))
    back = from_json(json.loads(text))

    assert isinstance(back, Detections)
    np.testing.assert_allclose(back.xyxy, result.xyxy, atol=0.051)
    np.testing.assert_allclose(back.confidence, result.confidence, atol=5.1e-5)
    np.testing.assert_array_equal(back.class_id, result.class_id)
    assert back.xyxy.dtype == np.float32
    assert back.class_id.dtype == np.int32


def test_an_object_carries_its_label_and_an_unknown_class_its_number() -> None:
    result = Detections(np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([1, 9], np.int32))

    document = to_json(result, LABELS)

    assert [found["label"] for found in document["objects"]] == ["person", "9"]


def test_an_empty_frame_survives_json() -> None:
    back = from_json(to_json(Detections.empty(), LABELS))

    assert isinstance(back, Detections)
    assert back.xyxy.shape == (0, 4)
    assert len(back) == 0


def test_a_classification_survives_json() -> None:
    result = Classification(np.array([0.75, 0.25], np.float32), np.array([1, 0], np.int32))

    back = from_json(to_json(result, LABELS))

    assert isinstance(back, Classification)
    np.testing.assert_array_equal(back.class_id, [1, 0])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "poem"},
        {"kind": "detection"},
        {"kind": "detection", "objects": 3},
        {"kind": "detection", "objects": [{"class_id": 1, "confidence": 1}]},
        {"kind": "detection", "objects": [{"class_id": 1, "confidence": 1, "xyxy": [1, 2]}]},
        {"kind": "classification", "classes": [{"class_id": "a", "confidence": 1}]},
    ],
)
def test_what_is_no_result_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(document)
