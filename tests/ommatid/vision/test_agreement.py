"""Two results of one image are compared as PASCAL VOC compares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ommatid.vision.agreement import Agreement, agree, iou_matrix
from ommatid.vision.results import Classification, Detections


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(array[:, :4], array[:, 4], array[:, 5].astype(np.int32))


def test_overlap_is_intersection_over_union() -> None:
    first = np.array([[0, 0, 2, 2], [10, 10, 11, 11]], np.float32)

    overlap = iou_matrix(first, np.array([[1, 0, 3, 2]], np.float32))

    np.testing.assert_allclose(overlap, [[1 / 3], [0]], rtol=1e-6)


def test_a_box_matches_where_it_overlaps_half() -> None:
    reference = boxes((0, 0, 10, 10, 0.9, 1))

    assert agree(boxes((0, 0, 10, 5, 0.9, 1)), reference) == Agreement(1, 0, 0, 1)
    assert agree(boxes((0, 0, 10, 4.9, 0.9, 1)), reference) == Agreement(0, 1, 1, 1)


def test_a_box_of_another_class_does_not_match() -> None:
    assert agree(boxes((0, 0, 10, 10, 0.9, 2)), boxes((0, 0, 10, 10, 0.9, 1))) == Agreement(0, 1, 1, 1)


def test_one_object_is_matched_once() -> None:
    twice = boxes((0, 0, 10, 10, 0.9, 1), (0, 0, 10, 9, 0.8, 1))

    assert agree(twice, boxes((0, 0, 10, 10, 0.9, 1))) == Agreement(1, 1, 0, 1)


def test_the_surest_box_chooses_first() -> None:
    reference = boxes((0, 0, 10, 10, 0.9, 1), (4, 0, 14, 10, 0.9, 1))
    candidate = boxes((3, 0, 13, 10, 0.6, 1), (1, 0, 11, 10, 0.9, 1))

    assert agree(candidate, reference) == Agreement(2, 0, 0, 1)


def test_counts_add_up_over_images() -> None:
    total = Agreement(3, 1, 0, 1) + Agreement(5, 0, 3, 1)

    assert total == Agreement(8, 1, 3, 2)
    assert total.value == pytest.approx(16 / 20)


def test_nothing_seen_by_either_agrees_but_rests_on_nothing() -> None:
    found = agree(Detections.empty(), Detections.empty())

    assert found.value == 1
    assert found.seen == 0


def test_classifications_agree_on_the_top_class() -> None:
    cat = Classification(np.array([0.9, 0.1], np.float32), np.array([3, 4], np.int32))
    dog = Classification(np.array([0.6, 0.4], np.float32), np.array([4, 3], np.int32))

    total = agree(cat, cat) + agree(cat, dog)

    assert total.value == pytest.approx(0.5)


def test_a_detection_and_a_classification_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot agree"):
        agree(Detections.empty(), Classification(np.ones(1, np.float32), np.zeros(1, np.int32)))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9), st.integers(0, 2)), max_size=8))
def test_a_result_agrees_with_itself(rows: list[tuple[int, int, int, int]]) -> None:
    confidence = np.linspace(0.9, 0.1, len(rows))
    result = boxes(*((x, y, x + s, y + s, float(c), k) for (x, y, s, k), c in zip(rows, confidence, strict=True)))

    found = agree(result, result)

    assert found.value == 1
    assert found.both == len(rows)
