"""The loop as a process, on a real video, with real models."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from agent.loop.config import LoopConfig, SourceConfig
from agent.loop.protocol import FramePush, SourcePush, Status
from agent.loop_client import LoopClient, OrderRefusedError
from ommatid.errors import LinkError
from tests.support.bundles import install, make_bundle, unpack
from tests.support.loops import ROOT, make_video, running_loop, short_folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder that runs version 1."""
    install(make_bundle(tmp_path, version="1"), tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def second(tmp_path: Path, state: Path) -> Path:
    """Return the unpacked version 2."""
    return unpack(make_bundle(tmp_path, version="2"), state / "store")


def test_every_frame_is_seen_by_exactly_one_model_and_none_is_lost_over_a_swap(
    tmp_path: Path, state: Path, second: Path
) -> None:
    video = make_video(tmp_path / "v.avi", frames=30)
    with running_loop(state, f"{video}#loop", as_fast_as_possible=True) as loop:
        first = loop.next_frame().digest

        loop.client.load(second, second.name)
        loop.client.swap()
        figures = loop.next_swapped()
        loop.client.back()
        back = loop.next_swapped()

    indices = [frame.index for frame in loop.frames]
    changes = [after.digest for before, after in pairwise(loop.frames) if after.digest != before.digest]
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert changes == [second.name, first]
    assert loop.frames[-1].dropped == 0
    assert (figures.digest, figures.previous, figures.dropped_by_swap, figures.back) == (second.name, first, 0, False)
    assert (back.digest, back.previous, back.dropped_by_swap, back.back) == (first, second.name, 0, True)
    assert figures.frames > 0
    assert figures.p99_ms > 0


def test_a_video_at_its_own_rate_goes_on_through_a_swap(tmp_path: Path, state: Path, second: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=40, fps=20)
    with running_loop(state, f"{video}#t=0.5,1.5&loop") as loop:
        loop.client.load(second, second.name)
        loop.client.swap()
        loop.next_swapped()
        status = loop.client.status()

    captured = [frame.captured_at_ms for frame in loop.frames]
    gaps = [after - before for before, after in pairwise(captured)]
    assert status.active == second.name
    assert status.previous is not None
    assert status.sources[0].state == "running"
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(50, abs=2)


def test_a_frame_says_what_was_found_and_how_good_it_is(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        frame = loop.next_frame()

    assert {found.label for found in frame.objects} == {"bright", "dark"}
    assert frame.quality_state == "learning"
    assert "brightness" in frame.quality
    assert (frame.width, frame.height) == (64, 48)
    assert 0 < frame.latency_ms <= frame.age_ms


def test_back_needs_a_swap_and_swap_needs_a_model(tmp_path: Path, state: Path, second: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        with pytest.raises(OrderRefusedError) as swap:
            loop.client.swap()
        loop.client.load(second, second.name)
        loop.client.swap()
        loop.client.drop()
        with pytest.raises(OrderRefusedError) as back:
            loop.client.back()
        status = loop.client.status()

    assert swap.value.error == "NothingLoadedError"
    assert back.value.error == "NothingBeforeError"
    assert (status.active, status.loaded, status.previous) == (second.name, None, None)


def test_a_model_that_does_not_load_leaves_the_old_one_running(tmp_path: Path, state: Path) -> None:
    broken = unpack(make_bundle(tmp_path, version="3", fault="garbage"), state / "store")
    failing = unpack(make_bundle(tmp_path, version="4", fault="nan"), state / "store")
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        before = loop.next_frame().digest
        errors = []
        for folder in (broken, failing, tmp_path / "missing"):
            with pytest.raises(OrderRefusedError) as refused:
                loop.client.load(folder, folder.name)
            errors.append(refused.value.error)
        after = loop.client.status()

    assert errors == ["BackendError", "BackendError", "BundleError"]
    assert (after.active, after.loaded, after.errors) == (before, None, 0)


def test_a_supervisor_that_dies_does_not_matter_to_the_loop(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        first = loop.next_frame()
        loop.client.close()
        with LoopClient(loop.config.socket) as other:
            other.connect()
            pushes = other.pushes()
            frame = next(push for push in pushes if isinstance(push, FramePush))
            again = other.status()

    assert frame.index > first.index
    assert again.frames > first.frames


def test_hostile_lines_are_answered_and_forgotten(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        loop.next_frame()
        for line in (b"\xff\x00\n", b"[]\n", b'{"id":1,"order":"fly"}\n', b'{"order":"swap"}\n', b"[" * 90_000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.settimeout(20)
                raw.connect(str(loop.config.socket))
                raw.sendall(line)
                answer = next(document for each in raw.makefile("rb") if "answer" in (document := json.loads(each)))
                assert (answer["ok"], answer["error"]) == (False, "MessageError")
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(20)
            raw.connect(str(loop.config.socket))
            with pytest.raises(OSError, match=r"reset|pipe"):
                raw.sendall(b"x" * 64 * 1024 * 1024)
        loop.client.connect()

        assert loop.client.status().active is not None


def test_a_supervisor_that_does_not_read_loses_pushes_and_stops_nothing(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop&fps=500") as loop:
        first = loop.next_frame()
        loop.client.close()
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(loop.config.socket))
            deaf.sendall(b'{"id":1,"order":"status"}\n')
            with LoopClient(loop.config.socket) as witness:  # takes the deaf one's place; looks until enough has run
                witness.connect()
                while witness.status().frames < first.frames + 500:
                    pass
                assert witness.status().errors == 0


def test_the_end_of_a_video_is_a_state_that_comes_after_its_last_frame(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=8)
    with running_loop(state, str(video), as_fast_as_possible=True) as loop:
        ended = loop.next_source("ended")
        status = loop.client.status()

    assert ended == SourcePush("camera", "ended", "no more pictures")
    assert [frame.index for frame in loop.frames] == list(range(8))
    assert status.sources[0].state == "ended"


def test_a_source_that_is_not_there_is_down_and_comes_back(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    missing = tmp_path / "later.avi"
    with running_loop(state, f"{missing}#loop") as loop:
        while loop.client.status().sources[0].state != "down":
            pass
        (tmp_path / "copy").write_bytes(video.read_bytes())
        (tmp_path / "copy").rename(missing)

        frame = loop.next_frame()

    assert frame.index == 0


def test_without_a_model_frames_are_judged_and_the_first_model_can_come(
    tmp_path: Path, state: Path, second: Path
) -> None:
    shutil.rmtree(state / "models")
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        frame = loop.next_frame()
        before = loop.client.status()
        loop.client.load(second, second.name)
        loop.client.swap()
        loop.client.back()
        back = loop.client.status()

    assert frame.digest is None
    assert frame.quality_state is not None
    assert (before.active, before.slot, before.error) == (None, None, None)
    assert back.active is None


def test_a_current_model_that_does_not_load_gives_way_to_the_previous_one(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    good = install(make_bundle(tmp_path, version="1"), state, slot="previous")
    install(make_bundle(tmp_path, version="9", fault="garbage"), state, slot="current")

    with running_loop(state, f"{video}#loop") as loop:
        status = loop.client.status()

    assert (status.active, status.slot, status.error) == (good.name, "previous", "BackendError")


def test_the_loop_loads_nothing_that_it_does_not_need(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    script = f"""
import sys, threading
from pathlib import Path
from agent.loop.app import Loop
from agent.loop.config import LoopConfig, SourceConfig
from agent.loop_client import LoopClient
with_socket = Path(sys.argv[1]) / "loop.sock"
loop = Loop(LoopConfig((SourceConfig("camera", {str(video)!r}),), with_socket, Path({str(state / "models")!r})))
def watch():
    client = LoopClient(with_socket)
    client.connect()
    next(client.pushes())
    client.close()
    loop.stop()
threading.Thread(target=watch).start()
loop.run()
names = ("pydantic", "tuf", "paho", "click", "httpx", "onnx", "cryptography", "rich", "ai_edge_litert")
print([name for name in names if name in sys.modules], "onnxruntime" in sys.modules)
"""
    with short_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
        )

    assert done.stdout.strip() == "[] True"


def test_the_socket_is_its_owners_alone_and_a_stale_one_is_replaced(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with short_folder() as folder:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "loop.sock"))
        with running_loop(state, f"{video}#loop", socket=folder / "loop.sock") as loop:
            mode = stat.S_IMODE((folder / "loop.sock").stat().st_mode)
            second = subprocess.run(
                [sys.executable, "-m", "agent.loop"],
                input=loop.config.encode(),
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=60,
                check=False,
            )
            running = loop.client.status()
        left = (folder / "loop.sock").exists()

    assert mode == 0o600
    assert second.returncode == 1
    assert second.stderr.rstrip().count("error: ") == 1
    assert "hint: " in second.stderr
    assert running.active is not None
    assert not left


def test_sigterm_ends_the_loop_cleanly(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with running_loop(state, f"{video}#loop") as loop:
        loop.next_frame()
        os.kill(loop.process.pid, signal.SIGTERM)

        status = loop.process.wait(20)

    assert status == 0
    assert "Traceback" not in loop.stderr


def status_at_last(client: LoopClient) -> Status:
    """Return the status once the client has its place: two clients of one loop take it from each other."""
    while True:
        try:
            client.connect()
            return client.status()
        except LinkError:
            continue


def test_a_client_without_a_loop_says_so_and_finds_it_later(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi")
    with short_folder() as folder, LoopClient(folder / "loop.sock") as early:
        with pytest.raises(LinkError, match="no loop"):
            early.status()
        with pytest.raises(LinkError, match="no loop"):
            early.connect(timeout_s=0.01)
        with running_loop(state, f"{video}#loop", socket=folder / "loop.sock") as loop:
            loop.client.close()
            linked = status_at_last(early)
        while early.linked:
            pass
        with pytest.raises(LinkError):
            early.status()

    assert linked.active is not None


def test_a_bad_configuration_is_one_clear_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.loop"],
        input="{}",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: loop configuration: `sources`")


def test_two_sources_share_one_model(tmp_path: Path, state: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=10)
    with short_folder() as folder:
        sources = (SourceConfig("a", f"{video}#loop"), SourceConfig("b", f"{video}#loop&fps=5"))
        config = LoopConfig(sources, folder / "loop.sock", state / "models")
        with running_loop(state, "", sources=config.sources) as loop:
            seen = {loop.next_frame().source for _ in range(20)}
            status = loop.client.status()

    assert seen == {"a", "b"}
    assert [source.name for source in status.sources] == ["a", "b"]
