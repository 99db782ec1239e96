import json
import os
from pathlib import Path

import pytest

from agent.spool import Spool
from agent.status import AgentStatus, read_status, running_address, table
from agent.update.release import Release
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid.contract.digests import sha256_file
from ommatid.contract.messages import Event, SourceStatus, SwapFigures, UpdateState
from ommatid.disk import RealDisk
from tests.support.bundles import make_bundle
from tests.support.clock import HandClock

DIGEST = "a" * 64


@pytest.fixture
def installed(state_dir: Path, tmp_path: Path) -> Release:
    bundle = make_bundle(tmp_path, version="2")
    release = Release(
        path="detector/detector-2-fp32.bundle",
        length=bundle.stat().st_size,
        sha256=sha256_file(bundle),
        model="detector",
        version="2",
        target="fp32",
        release_counter=2,
    )
    store, slots = Store(state_dir, RealDisk()), SlotLinks(state_dir, RealDisk())
    store.prepare()
    slots.prepare()
    store.install(bundle, release)
    slots.stand_by("detector", release.sha256)
    slots.promote("detector", release.sha256, None)
    return release


def test_without_a_supervisor_the_disk_tells(state_dir: Path, installed: Release) -> None:
    spool = Spool(state_dir / "spool.db", HandClock())
    spool.add(Event, name="x", severity="info", text="")
    spool.close()

    status = read_status(state_dir, RealDisk())

    assert status.running is False
    assert status.model == installed.ref
    assert status.spool == 1
    assert status.update.state is UpdateState.IDLE


def test_an_empty_folder_is_a_device_without_anything(tmp_path: Path) -> None:
    assert read_status(tmp_path, RealDisk()) == AgentStatus()
    assert "not enrolled" in table(AgentStatus())


@pytest.mark.parametrize(
    "content", [b"", b"{}", json.dumps({"pid": 2**22 + 1, "host": "127.0.0.1", "port": 1}).encode()]
)
def test_what_a_dead_supervisor_left_is_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "supervisor.json").write_bytes(content)

    assert running_address(tmp_path) is None


def test_a_supervisor_that_does_not_answer_counts_as_not_running(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    address = {"pid": os.getpid(), "host": "127.0.0.1", "port": 9}
    (tmp_path / "run" / "supervisor.json").write_text(json.dumps(address))

    assert read_status(tmp_path, RealDisk()).running is False


def test_people_get_a_table() -> None:
    status = AgentStatus(
        running=True,
        id="cam-1",
        server="https://fleet",
        connected=True,
        sources=(SourceStatus(name="cam", state="running", fps=20, frames=9, dropped=1, p50_ms=10, p99_ms=20),),
        last_swap=SwapFigures(digest=DIGEST, load_ms=1, frames=9, dropped=0, dropped_by_swap=0, p99_ms=12.34),
    )

    text = table(status)

    assert "cam-1" in text
    assert "https://fleet (connected)" in text
    assert "running, 20.0 fps, 9 frames, 1 dropped, p50 10.0 ms, p99 20.0 ms, learning" in text
    assert "0 frames dropped by it, p99 12.3 ms" in text
