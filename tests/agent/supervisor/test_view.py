import pytest

from agent.loop.protocol import FramePush, SourceFigures, SourcePush, Status, SwappedPush
from agent.supervisor.view import LoopView, judged, lasting
from tests.support.clock import HandClock

DIGEST = "a" * 64


def frame(state: str = "ok", flags: tuple[str, ...] = (), **fields: object) -> FramePush:
    base: dict[str, object] = {
        "source": "cam",
        "index": 0,
        "captured_at_ms": 0,
        "latency_ms": 1.0,
        "age_ms": 1.0,
        "frames": 1,
        "dropped": 0,
        "digest": DIGEST,
        "quality_state": state,
        "quality": {"brightness": 100.0, "sharpness_fine": -2.0},
        "flags": flags,
    }
    return FramePush(**{**base, **fields})  # type: ignore[arg-type]


def status(*sources: SourceFigures, **fields: object) -> Status:
    base: dict[str, object] = {
        "uptime_s": 1.0,
        "active": DIGEST,
        "loaded": None,
        "previous": None,
        "loading": False,
        "slot": "current",
        "error": None,
        "reason": None,
        "frames": 3,
        "errors": 0,
        "pushes_lost": 0,
        "last_frame_ms_ago": 1.0,
        "sources": sources,
    }
    return Status(**{**base, **fields})  # type: ignore[arg-type]


CAMERA = SourceFigures("cam", "running", "", 3, 1, 0, 20.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("states", "quality"),
    [
        ([], "learning"),
        (["ok"] * 10, "ok"),
        (["ok"] * 3 + ["flagged"] * 7, "ok"),
        (["ok"] * 2 + ["flagged"] * 8, "flagged"),
        (["learning"] * 10, "learning"),
        (["unsupported"] * 10, "unsupported"),
        (["what a newer loop says"], "unsupported"),
    ],
)
def test_one_bad_frame_is_no_fault_and_not_knowing_is_never_green(states: list[str], quality: str) -> None:
    assert judged(states) == quality


def test_only_lasting_reasons_are_told() -> None:
    assert lasting([("too_dark", "noisy")] * 4 + [("too_dark",)] * 4) == ("too_dark",)


def test_the_figures_are_the_loops_and_the_quality_that_of_the_frames() -> None:
    view = LoopView(HandClock())
    for _ in range(10):
        view.frame(frame("flagged", ("too_dark",)))
    view.answered(status(CAMERA))

    (source,) = view.sources()

    assert (source.frames, source.dropped, source.fps, source.p99_ms) == (3, 1, 20.0, 2.0)
    assert (source.quality, source.quality_reasons) == ("flagged", ("too_dark",))
    assert (source.brightness, source.sharpness) == (100.0, -2.0)


def test_a_frame_without_a_result_does_not_make_the_device_ready() -> None:
    clock = HandClock()
    view = LoopView(clock)
    view.frame(frame(digest=None))
    view.frame(frame(error="BackendError: no"))
    assert view.last_frame_age_s == float("inf")

    view.frame(frame())
    clock.pass_s(3)

    assert view.last_frame_age_s == 3


def test_only_another_state_of_a_source_is_news() -> None:
    view = LoopView(HandClock())

    news = [view.source(SourcePush("cam", state)) for state in ("running", "running", "down", "running")]  # type: ignore[arg-type]

    assert news == [True, False, True, True]


def test_an_absent_loop_has_no_sources_but_the_last_swap_is_remembered() -> None:
    view = LoopView(HandClock())
    view.swapped(SwappedPush(DIGEST, None, 10.0, 20, 0, 0, 5.0))
    view.answered(None)

    assert view.sources() == ()
    swap = view.last_swap()
    assert swap is not None
    assert swap.load_ms == 10.0
