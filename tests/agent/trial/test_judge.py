import math
from dataclasses import replace

import pytest

from agent.trial.errors import GoldenAgreementError, GoldenMismatchError, LatencyError, TrialOutputError
from agent.trial.judge import Figures, judge
from agent.trial.verdict import TrialVerdict, decode_verdict

GOOD = Figures(0.001, 0.01, 0.99, 0.97, latency_ms=10.0, current_latency_ms=8.0)


def test_good_figures_pass() -> None:
    assert judge(GOOD) is None


@pytest.mark.parametrize("difference", [0.011, math.inf, math.nan])
def test_outputs_too_far_from_the_golden_ones_are_refused(difference: float) -> None:
    assert isinstance(judge(replace(GOOD, worst_difference=difference)), GoldenMismatchError)


@pytest.mark.parametrize("agreement", [0.969, math.nan])
def test_too_little_agreement_is_refused(agreement: float) -> None:
    assert isinstance(judge(replace(GOOD, agreement=agreement)), GoldenAgreementError)


def test_a_model_much_slower_than_the_running_one_is_refused() -> None:
    assert judge(replace(GOOD, latency_ms=24.0)) is None
    assert isinstance(judge(replace(GOOD, latency_ms=24.1)), LatencyError)
    assert judge(replace(GOOD, latency_ms=24.1), max_ratio=4.0) is None


def test_latency_refuses_nothing_where_no_model_runs() -> None:
    assert judge(replace(GOOD, latency_ms=1e6, current_latency_ms=None)) is None


def test_a_verdict_survives_its_line() -> None:
    verdict = TrialVerdict(passed=False, error="LatencyError", reason="slow", latency_ms=3.5, peak_memory_bytes=7)

    assert decode_verdict(verdict.encode()) == verdict


def test_what_is_not_finite_is_not_in_the_line() -> None:
    verdict = TrialVerdict(passed=False, error="GoldenMismatchError", worst_difference=math.inf)

    assert decode_verdict(verdict.encode()).worst_difference is None


@pytest.mark.parametrize(
    "line",
    ["", "null", "[]", "{}", '{"passed": 1}', '{"passed": true, "more": 1}', '{"passed":true,"ratio":"x"}', "{" * 9999],
)
def test_anything_else_is_no_verdict(line: str) -> None:
    with pytest.raises(TrialOutputError):
        decode_verdict(line)
