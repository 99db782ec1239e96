from pathlib import Path

import pytest

from agent.trial.runner import TrialLimits, run_trial
from agent.trial.verdict import TrialVerdict
from tests.support.bundles import Fault, make_bundle, unpack

MEMORY_BYTES = 600 * 1024 * 1024


def trial(folder: Path, fault: Fault | None, *, timeout_s: float = 60.0, version: str = "2") -> TrialVerdict:
    current = unpack(make_bundle(folder, version="1"), folder / "store")
    candidate = unpack(make_bundle(folder, version=version, fault=fault), folder / "store")
    return run_trial(candidate, current, TrialLimits(MEMORY_BYTES), timeout_s)


def test_a_sound_model_passes_with_its_figures(tmp_path: Path) -> None:
    verdict = trial(tmp_path, None)

    assert verdict.passed, verdict
    assert verdict.error is None
    assert verdict.figures.keys() == {
        "agreement",
        "worst_difference",
        "latency_ms",
        "current_latency_ms",
        "ratio",
        "peak_memory_bytes",
    }
    assert verdict.agreement == 1.0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("golden", "GoldenMismatchError"),
        ("agreement", "GoldenAgreementError"),
        ("nan", "BackendError"),
        ("slow", "LatencyError"),
        ("memory", "MemoryLimitError"),
        ("garbage", "BackendError"),
        ("crash", "TrialCrashError"),
    ],
)
def test_each_way_to_be_bad_is_refused_under_its_own_name(tmp_path: Path, fault: Fault, error: str) -> None:
    verdict = trial(tmp_path, fault)

    assert not verdict.passed
    assert verdict.error == error
    assert verdict.reason


def test_a_model_that_hangs_is_ended(tmp_path: Path) -> None:
    verdict = trial(tmp_path, "hang", timeout_s=3.0)

    assert verdict.error == "TrialTimeoutError"


def test_a_slow_model_passes_where_nothing_runs_yet(tmp_path: Path) -> None:
    candidate = unpack(make_bundle(tmp_path, fault="slow"), tmp_path / "store")

    verdict = run_trial(candidate, None, TrialLimits())

    assert verdict.passed
    assert verdict.ratio is None


def test_a_broken_running_model_does_not_refuse_the_new_one(tmp_path: Path) -> None:
    current = unpack(make_bundle(tmp_path, version="1", fault="garbage"), tmp_path / "store")
    candidate = unpack(make_bundle(tmp_path, version="2"), tmp_path / "store")

    verdict = run_trial(candidate, current, TrialLimits())

    assert verdict.passed
    assert verdict.current_latency_ms is None


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    verdict = run_trial(tmp_path / "nothing", None, TrialLimits())

    assert verdict.error == "BundleError"
