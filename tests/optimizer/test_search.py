from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ommatid.errors import BadInputError
from ommatid.vision.agreement import Agreement
from optimizer import gate
from optimizer.artifact import Artifact
from optimizer.calibrate import Calibration, calibrate
from optimizer.errors import GateError
from optimizer.passes.embed import Embed
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import Preprocessing
from optimizer.progress import Tick
from optimizer.request import Effort, GateRule
from optimizer.search import Judgement, Try, best, search, sensitivity
from tests.support.nets import make_classifier

PLAIN = [np.full((1, 16, 16, 3), color, np.uint8) for color in ([220, 20, 30], [40, 250, 30], [30, 10, 200])]


@pytest.fixture(scope="module")
def source() -> Artifact:
    normal = Normalise()(Artifact.source(make_classifier(), "0" * 64))
    return Embed(Preprocessing((0.0,) * 3, (1 / 255,) * 3))(normal)


@pytest.fixture(scope="module")
def seen(source: Artifact) -> Calibration:
    return calibrate(source.model, PLAIN)


class Silent:
    """Tells nobody about the steps."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Tick]:
        yield lambda: None


class Judge:
    """Pass the candidate of one number; note all."""

    def __init__(self, passes: int) -> None:
        self.passes = passes
        self.seen: list[Artifact] = []

    def __call__(self, artifact: Artifact) -> Judgement:
        self.seen.append(artifact)
        return judgement(0.5 + len(self.seen) / 100, passed=len(self.seen) == self.passes)


def judgement(value: float, *, passed: bool = False, accuracy: float | None = None) -> Judgement:
    both = round(value * 1000)
    return Judgement(Agreement(both, 1000 - both, 1000 - both, 60), accuracy, passed)


def test_the_first_recipe_that_passes_ends_the_search(source: Artifact, seen: Calibration) -> None:
    judge = Judge(passes=1)

    tries = search(source, seen, PLAIN, judge, Effort(), Silent())

    assert [item.name for item in tries] == ["int8 per channel, full ranges"]
    assert best(tries).judgement.passed


def test_the_search_goes_from_int8_throughout_to_layers_in_float(source: Artifact, seen: Calibration) -> None:
    judge = Judge(passes=3)

    tries = search(source, seen, PLAIN, judge, Effort(), Silent())

    assert [item.name for item in tries] == [
        "int8 per channel, full ranges",
        "int8 per channel, typical ranges",
        "int8 per channel, 1 layer float",
    ]
    (layer,) = best(tries).float_layers
    assert best(tries).artifact.lineage[-1].facts == ("U8S8 per channel", f"{layer} stays float")


def test_without_search_one_recipe_is_judged(source: Artifact, seen: Calibration) -> None:
    tries = search(source, seen, PLAIN, Judge(passes=9), Effort(search=False, per_channel=False), Silent())

    assert [item.name for item in tries] == ["int8 per tensor, full ranges"]


def test_when_none_passes_the_closest_is_shown(source: Artifact, seen: Calibration) -> None:
    tries = search(source, seen, PLAIN, Judge(passes=99), Effort(), Silent())

    assert best(tries) is tries[-1]
    assert not best(tries).judgement.passed


def test_the_time_budget_ends_the_search(source: Artifact, seen: Calibration) -> None:
    moments = iter([0.0, *[700.0] * 9])

    tries = search(source, seen, PLAIN, Judge(passes=99), Effort(time_budget_s=600), Silent(), lambda: next(moments))

    assert len(tries) == 1


def test_no_more_layers_stay_float_than_allowed(source: Artifact, seen: Calibration) -> None:
    tries = search(source, seen, PLAIN, Judge(passes=99), Effort(max_float_layers=0), Silent())

    assert len(tries) == 2


def test_the_layer_that_suffers_most_comes_first(source: Artifact, seen: Calibration) -> None:
    order = sensitivity(source, seen.extremes(), False, PLAIN, Silent())

    assert order[0] == "Conv_0"


@pytest.mark.parametrize(
    ("rule", "value", "accuracy", "passed"),
    [
        (GateRule(0.97), 0.97, None, True),
        (GateRule(0.97), 0.969, None, False),
        (GateRule(0.97, max_drop=0.01), 0.5, 0.89, True),
        (GateRule(0.97, max_drop=0.01), 0.999, 0.88, False),
    ],
)
def test_labels_decide_where_a_drop_is_named_and_agreement_elsewhere(
    rule: GateRule, value: float, accuracy: float | None, *, passed: bool
) -> None:
    assert gate.judge_against(rule, judgement(value, accuracy=accuracy), 0.90) is passed


def test_a_refusal_says_what_was_measured_and_what_was_asked(source: Artifact) -> None:
    refused = Try("int8", source, judgement(0.876))

    with pytest.raises(GateError, match=r"F1 .* is 0\.876 \(60 images, best of 3 recipes\); at least 0\.97"):
        gate.enforce(GateRule(), refused, 3, "agreement_f1", None)

    gate.enforce(GateRule(enforced=False), refused, 3, "agreement_f1", None)


def test_a_refusal_by_labels_counts_points_of_accuracy(source: Artifact) -> None:
    refused = Try("int8", source, judgement(0.99, accuracy=0.86))

    with pytest.raises(GateError, match=r"fell by 4\.00 points to 86\.00 %"):
        gate.enforce(GateRule(max_drop=0.01), refused, 1, "agreement_top1", 0.90)


def test_a_drop_needs_labels() -> None:
    with pytest.raises(BadInputError, match="--max-drop needs labels"):
        gate.check_rule(GateRule(max_drop=0.01), labelled=False, classification=True)


def test_images_with_nothing_in_them_prove_nothing() -> None:
    with pytest.raises(BadInputError, match="finds nothing in the 60 validation images"):
        gate.check_evidence(0, 60)
