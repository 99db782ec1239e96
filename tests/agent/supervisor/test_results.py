import json
import os
from pathlib import Path

import pytest

from agent.loop.protocol import FoundObject, FramePush
from agent.supervisor.results import ResultSink
from ommatid.errors import StorageError

FRAME = FramePush(
    source="cam",
    index=7,
    captured_at_ms=1500,
    latency_ms=12.34567,
    age_ms=20.0,
    frames=8,
    dropped=1,
    digest="a" * 64,
    width=640,
    height=480,
    quality_state="flagged",
    quality={"brightness": 10.0},
    flags=("too_dark",),
    objects=(FoundObject("person", 0.98765, (1.04, 2.0, 3.0, 4.0)), FoundObject("cat", 0.5)),
)


def test_a_result_is_one_line_with_everything_of_its_frame(tmp_path: Path) -> None:
    file = tmp_path / "results.ndjson"
    file.write_text('{"old":1}\n')
    sink = ResultSink(str(file))

    sink.write(FRAME)
    sink.close()

    old, new = (json.loads(line) for line in file.read_text().splitlines())
    assert old == {"old": 1}
    assert new == {
        "source": "cam",
        "index": 7,
        "captured_at": "1970-01-01T00:00:01.500Z",
        "latency_ms": 12.346,
        "model": "a" * 64,
        "width": 640,
        "height": 480,
        "objects": [
            {"label": "person", "confidence": 0.9877, "xyxy": [1.0, 2.0, 3.0, 4.0]},
            {"label": "cat", "confidence": 0.5},
        ],
        "quality": {"state": "flagged", "reasons": ["too_dark"], "signals": {"brightness": 10.0}},
    }


def test_a_full_disk_costs_results_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = ResultSink("/dev/full")

    sink.write(FRAME)
    sink.write(FRAME)
    sink.close()

    assert sink.lost == 2
    assert not sink.unread
    assert caplog.messages == ["/dev/full: the disk is full; results are lost until it can be written"]


def test_a_pipe_that_nobody_reads_is_told_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = ResultSink(str(pipe))

    sink.write(FRAME)
    os.close(reader)
    sink.write(FRAME)
    sink.close()

    assert sink.unread
    assert sink.lost == 1
    assert caplog.messages == []


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no/such") as caught:
        ResultSink(str(tmp_path / "no/such/file"))

    assert caught.value.hint
