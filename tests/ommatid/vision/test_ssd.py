"""Raw SSD heads become boxes in the frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ommatid.vision.resize import plan
from ommatid.vision.ssd import SsdAnchors, SsdDecode, SsdDecoder, best_class, make_anchors
from tests.support.boxes import boxes_to_input

FRAME = (640, 480)
TRANSFORM, _ = plan("letterbox", FRAME, (300, 300))


def decoder(**changes: float) -> SsdDecoder:
    settings = {"score_threshold": 0.5, "iou_threshold": 0.5} | changes
    return SsdDecoder(
        SsdDecode("boxes", "scores"),
        width=300,
        height=300,
        max_detections=int(settings.pop("max_detections", 100)),
        **settings,
    )


def nothing(count: int = 1917, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((1, count, 4), np.float32), np.full((1, count, classes), -10, np.float32)


def encode(anchors: NDArray[np.float32], xyxy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the offsets that decode to `xyxy`, in shares of the input: the rule of section 2.2 turned round."""
    centre = np.stack([(xyxy[1] + xyxy[3]) / 2, (xyxy[0] + xyxy[2]) / 2])
    size = np.stack([xyxy[3] - xyxy[1], xyxy[2] - xyxy[0]])
    offsets = np.concatenate([(centre - anchors[:2]) / anchors[2:] * 10, np.log(size / anchors[2:]) * 5])
    return np.asarray(offsets, np.float32)


def test_the_default_rule_gives_1917_anchors_for_300_pixels() -> None:
    anchors = make_anchors(SsdAnchors(), 300, 300)

    assert anchors.shape == (1917, 4)
    # The first cell of the reduced lowest layer: a square of 0.1, then scale 0.2 with ratios 2 and 1/2.
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(anchors[1, 2:], [0.2 / 2**0.5, 0.2 * 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(anchors[2, 2:], [0.2 * 2**0.5, 0.2 / 2**0.5], rtol=1e-6)
    # The last anchor of the last layer: the geometric mean of 0.95 and 1.
    np.testing.assert_allclose(anchors[-1], [0.5, 0.5, 0.95**0.5, 0.95**0.5], rtol=1e-6)


def test_layers_of_one_stride_share_their_cells() -> None:
    rule = SsdAnchors((16, 16), aspect_ratios=(1.0,), interpolated_ratio=0.0, reduce_lowest_layer=False)

    anchors = make_anchors(rule, 32, 32)

    assert anchors.shape == (8, 4)
    np.testing.assert_allclose(anchors[0, :2], anchors[1, :2])
    np.testing.assert_allclose(anchors[:2, 2], [0.2, 0.95], rtol=1e-6)


def test_an_input_that_is_not_square_has_cells_by_its_own_sides() -> None:
    anchors = make_anchors(SsdAnchors((32,), reduce_lowest_layer=False), 64, 96)

    assert len(anchors) == 3 * 2 * 6
    assert anchors[:, 0].max() == pytest.approx(2.5 / 3)
    assert anchors[:, 1].max() == pytest.approx(1.5 / 2)


@given(
    anchor=st.integers(0, 1916),
    left=st.floats(0, 600),
    top=st.floats(0, 440),
    width=st.floats(10, 40),
    height=st.floats(10, 40),
)
def test_an_encoded_box_decodes_to_itself(anchor: int, left: float, top: float, width: float, height: float) -> None:
    wanted = np.array([left, top, left + width, top + height])
    boxes, scores = nothing()
    subject = decoder()
    inside = boxes_to_input(TRANSFORM, wanted[None].astype(np.float32))[0].astype(np.float64) / 300
    boxes[0, anchor] = encode(subject.anchors[anchor].astype(np.float64), inside)
    scores[0, anchor, 2] = 3

    found = subject.decode(boxes, scores, TRANSFORM)

    assert found.class_id.tolist() == [2]
    np.testing.assert_allclose(found.confidence, [1 / (1 + np.exp(-3))], rtol=1e-5)
    np.testing.assert_allclose(found.xyxy[0], wanted, atol=0.05)


def test_the_background_is_nothing_even_when_it_is_surest() -> None:
    boxes, scores = nothing()
    scores[0, 5, 0] = 9
    scores[0, 6, :2] = (9, 1)

    found = decoder().decode(boxes, scores, TRANSFORM)

    assert found.class_id.tolist() == [1]


def test_one_object_is_reported_once_but_two_classes_may_share_a_place() -> None:
    boxes, scores = nothing()
    subject = decoder()
    target = np.array([0.4, 0.4, 0.6, 0.6])
    for anchor, class_id, score in ((900, 1, 2.0), (901, 1, 4.0), (902, 2, 3.0)):
        boxes[0, anchor] = encode(subject.anchors[anchor].astype(np.float64), target)
        scores[0, anchor, class_id] = score

    found = subject.decode(boxes, scores, TRANSFORM)

    assert found.class_id.tolist() == [1, 2]
    assert found.confidence[0] == pytest.approx(1 / (1 + np.exp(-4)))


def test_only_the_surest_are_reported() -> None:
    boxes, scores = nothing()
    scores[0, ::100, 1] = np.linspace(1, 5, 20)

    found = decoder(max_detections=3).decode(boxes, scores, TRANSFORM)

    assert len(found) == 3
    assert (np.diff(found.confidence) <= 0).all()


def test_extreme_offsets_stay_in_the_frame() -> None:
    boxes, scores = nothing()
    boxes[0, 0] = 3e38
    boxes[0, 1] = -3e38
    scores[0, :2, 1] = 3e38

    found = decoder().decode(boxes, scores, TRANSFORM)

    assert np.isfinite(found.xyxy).all()
    assert found.xyxy.min() >= 0
    assert (found.xyxy <= [*FRAME, *FRAME]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_head_with_no_finite_number_is_refused(value: float) -> None:
    boxes, scores = nothing()
    scores[0, 3, 1] = value

    with pytest.raises(ValueError, match="finite"):
        decoder().decode(boxes, scores, TRANSFORM)


def test_a_head_of_another_shape_is_refused() -> None:
    boxes, scores = nothing(count=1916)

    with pytest.raises(ValueError, match="1917"):
        decoder().decode(boxes, scores, TRANSFORM)


def test_softmax_shares_confidence_with_the_background() -> None:
    scores = np.array([[2.0, 2.0, -100.0]], np.float32)

    class_id, confidence = best_class(scores, "softmax", 0)

    assert class_id.tolist() == [1]
    assert confidence[0] == pytest.approx(0.5)


def test_without_activation_scores_are_confidences() -> None:
    class_id, confidence = best_class(np.array([[0.1, 0.7], [0.2, 1.5]], np.float32), "none", None)

    assert class_id.tolist() == [1, 1]
    np.testing.assert_allclose(confidence, [0.7, 1.0])
