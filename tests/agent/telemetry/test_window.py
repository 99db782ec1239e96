from typing import Any

from agent.loop.protocol import FoundObject, FramePush
from agent.telemetry.window import WindowBuilder
from ommatid.contract.messages import Window
from ommatid.contract.windows import decode_window, encode_window
from tests.support.clock import HandClock

OLD, NEW = "a" * 64, "b" * 64


def frame(**fields: Any) -> FramePush:  # noqa: ANN401 - any field of a frame
    base: dict[str, Any] = {
        "source": "cam",
        "index": 1,
        "captured_at_ms": 0,
        "latency_ms": 12.5,
        "age_ms": 20.0,
        "frames": 1,
        "dropped": 0,
        "digest": OLD,
        "quality": {"brightness": 100.0},
        "objects": (FoundObject("person", 0.9, (0, 0, 1, 1)), FoundObject("person", 0.5), FoundObject("dog", 0.4)),
    }
    return FramePush(**{**base, **fields})


def test_a_window_ends_after_its_time() -> None:
    clock = HandClock()
    builder = WindowBuilder("cam", clock, 900)
    assert builder.add(frame(dropped=2)) is None
    clock.pass_s(899)
    assert builder.add(frame(dropped=5, flags=("dark",))) is None
    clock.pass_s(1)

    closed = builder.tick()

    assert closed is not None
    assert closed.digest == OLD
    assert closed.fields["frames"] == 2
    assert closed.fields["dropped"] == 5
    assert closed.fields["flagged"] == 1
    assert closed.fields["duration_s"] == 900
    assert closed.fields["classes"] == {"person": 4, "dog": 2}
    assert closed.fields["signals"]["confidence"]["n"] == 6
    assert builder.tick() is None


def test_a_window_never_mixes_two_models() -> None:
    builder = WindowBuilder("cam", HandClock(), 900)
    builder.add(frame())

    closed = builder.add(frame(digest=NEW))

    assert closed is not None
    assert closed.digest == OLD
    last = builder.close()
    assert last is not None
    assert last.digest == NEW


def test_a_loop_that_starts_again_does_not_spoil_the_count_of_drops() -> None:
    builder = WindowBuilder("cam", HandClock(), 900)
    builder.add(frame(dropped=100))
    builder.add(frame(dropped=3))

    closed = builder.close()

    assert closed is not None
    assert closed.fields["dropped"] == 103


def test_nothing_seen_is_no_window() -> None:
    clock = HandClock()
    builder = WindowBuilder("cam", clock, 900)
    clock.pass_s(5000)

    assert builder.tick() is None
    assert builder.close() is None


def test_a_frame_without_a_result_counts_for_quality_alone() -> None:
    builder = WindowBuilder("cam", HandClock(), 900)
    builder.add(frame(digest=None, objects=(), error="no model"))

    closed = builder.close()

    assert closed is not None
    assert set(closed.fields["signals"]) == {"brightness"}


def test_a_quarter_of_an_hour_is_about_a_kilobyte_on_the_wire() -> None:
    builder = WindowBuilder("cam", HandClock(), 900)
    for number in range(900):
        signals = {"brightness": 100 + number % 9, "contrast": 40 + number % 7, "entropy": 7.1, "sharpness": 0.5}
        builder.add(frame(quality=signals, latency_ms=11 + (number % 20) / 10))
    closed = builder.close()
    assert closed is not None
    report = {"boot": "0" * 32, "seq": 1, "uptime_s": 1.0, "sent_at": ""}

    wire = encode_window(Window.model_validate({**closed.fields, **report}))

    assert len(wire) < 1500
    assert decode_window(wire).frames == 900
