"""A vector of scores becomes the likeliest classes."""

import numpy as np
import pytest

from ommatid.vision.classify import classify


def test_the_likeliest_classes_come_first() -> None:
    found = classify(np.log(np.array([[0.2, 0.5, 0.3]], np.float32)), "softmax", 2)

    assert found.class_id.tolist() == [1, 2]
    np.testing.assert_allclose(found.confidence, [0.5, 0.3], rtol=1e-6)


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    found = classify(np.full((1, 4), 0.25, np.float32), "none", 10)

    assert found.class_id.tolist() == [0, 1, 2, 3]


def test_large_logits_do_not_overflow() -> None:
    found = classify(np.array([[3e38, -3e38]], np.float32), "softmax", 1)

    assert found.confidence.tolist() == [1.0]


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((2, 3)), np.zeros((1, 0)), np.array([[0.0, np.nan]])])
def test_scores_that_mean_nothing_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scores"):
        classify(scores.astype(np.float32), "softmax", 5)
