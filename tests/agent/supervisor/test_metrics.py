import pytest

from agent.loop.protocol import FoundObject, FramePush, SwappedPush
from agent.supervisor.metrics import Gauges, Metrics
from ommatid.contract.messages import ModelRef, UpdateState

DIGEST = "a" * 64


def frame(**fields: object) -> FramePush:
    base: dict[str, object] = {
        "source": "cam",
        "index": 0,
        "captured_at_ms": 0,
        "latency_ms": 20.0,
        "age_ms": 1.0,
        "frames": 1,
        "dropped": 0,
        "digest": DIGEST,
        "objects": (FoundObject("person", 0.9),),
    }
    return FramePush(**{**base, **fields})  # type: ignore[arg-type]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def lines(metrics: Metrics) -> list[str]:
    return metrics.page().decode().splitlines()


def test_frames_are_counted_in_base_units(metrics: Metrics) -> None:
    metrics.frame(frame(dropped=2))
    metrics.frame(frame(dropped=5, flags=("too_dark",)))
    metrics.frame(frame(dropped=5, error="BackendError: no"))
    metrics.frame(frame(dropped=5, digest=None))

    page = lines(metrics)

    assert 'ommatid_frames_total{source="cam"} 2.0' in page
    assert 'ommatid_frames_dropped_total{source="cam"} 5.0' in page
    assert 'ommatid_frames_flagged_total{source="cam"} 1.0' in page
    assert 'ommatid_inference_errors_total{source="cam"} 1.0' in page
    assert 'ommatid_objects_total{source="cam"} 2.0' in page
    assert 'ommatid_inference_seconds_sum{source="cam"} 0.04' in page


def test_a_loop_that_starts_again_counts_on(metrics: Metrics) -> None:
    metrics.frame(frame(dropped=7))
    metrics.frame(frame(dropped=1))

    assert 'ommatid_frames_dropped_total{source="cam"} 8.0' in lines(metrics)


def test_model_update_swap_and_gauges_are_shown(metrics: Metrics) -> None:
    metrics.model(ModelRef(name="street", version="2", target="int8-arm", digest=DIGEST, release_counter=2))
    metrics.update(UpdateState.PROBATION)
    metrics.swapped(SwappedPush(DIGEST, None, 10.0, 20, 0, 3, 5.0))
    metrics.refusal("ReplayedError")
    metrics.ask(Gauges(lambda: 4, lambda: 1, lambda: 0, lambda: 0.5))

    page = lines(metrics)

    assert 'ommatid_model_info{name="street",version="2"} 1.0' in page
    assert 'ommatid_update_state{state="probation"} 1.0' in page
    assert 'ommatid_update_state{state="idle"} 0.0' in page
    assert "ommatid_swap_frames_dropped_total 3.0" in page
    assert 'ommatid_refusals_total{error="ReplayedError"} 1.0' in page
    assert "ommatid_spool_reports 4.0" in page
    assert "ommatid_last_frame_age_seconds 0.5" in page


def test_the_number_of_series_does_not_grow_with_labels_or_models(metrics: Metrics) -> None:
    metrics.frame(frame())
    before = len(lines(metrics))

    for number in range(100):
        metrics.frame(frame(digest=f"{number:064x}", objects=(FoundObject(f"label {number}", 0.5),)))

    assert len(lines(metrics)) == before
