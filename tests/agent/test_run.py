"""The agent as a person runs it: real processes, a real fleet server, a real video."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bundles import make_bundle
from tests.support.loops import make_video
from tests.support.running_fleet import BIN, RunningFleet, call, until


class Agent:
    """One `edge-agent run` on a looped video."""

    def __init__(self, state_dir: Path, source: str) -> None:
        self.state_dir = state_dir
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        fast = {
            "HTTP_PORT": "0",
            "STATUS_INTERVAL_S": "1",
            "WINDOW_S": "2",
            "PROBATION_S": "1",
            "PROBATION_FRAMES": "10",
        }
        command = [BIN / "edge-agent", "run", "--state-dir", self.state_dir, "--source", self._source]
        with (self.state_dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stderr=log,
                stdout=log,
                env=os.environ | {f"EDGE_AGENT_{name}": value for name, value in fast.items()},
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(call("edge-agent", "status", "--state-dir", self.state_dir, "--json").stdout))

    def fetch(self, page: str) -> httpx.Response:
        port = json.loads((self.state_dir / "run" / "supervisor.json").read_text())["port"]
        return httpx.get(f"http://127.0.0.1:{port}{page}", timeout=10)

    def children(self) -> dict[str, int]:
        assert self._process is not None
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in found}
        return {line[-2]: pid for pid, line in lines.items() if len(line) > 1}  # one that has just died has no line

    def answers(self) -> bool:
        try:
            return self.fetch("/readyz").status_code in (200, 503)
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def ready(self) -> bool:
        try:
            return self.fetch("/readyz").status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False


@pytest.fixture
def agent(fleet: RunningFleet, state_dir: Path, tmp_path: Path) -> Iterator[Agent]:
    name = f"cam-{os.urandom(4).hex()}"
    arguments = ("--token-file", "-", "--device", name, "--state-dir", state_dir)
    call("edge-agent", "enroll", *arguments, stdin=fleet.token())
    agent = Agent(state_dir, f"{make_video(tmp_path / 'video.avi', frames=60)}#loop")
    agent.start()
    until(agent.answers, "the supervisor")
    yield agent
    agent.stop()


def test_the_life_of_a_device(fleet: RunningFleet, agent: Agent, tmp_path: Path) -> None:
    """One story, because its parts are slow to set up: no model, a rollout, deaths of each process, the end."""
    # given: a device without a model is healthy and not ready
    assert agent.fetch("/healthz").status_code == 200
    assert agent.fetch("/readyz").status_code == 503
    bundle = make_bundle(tmp_path, name=f"model-{os.urandom(3).hex()}")
    name = bundle.name.rsplit("-", 2)[0]
    fleet.call("push", bundle, "--keys", fleet.keys)

    # when: a model comes over the air
    done = fleet.rollout(name, "1")

    # then: it runs, and says so everywhere
    assert done["state"] == "finished"
    until(agent.ready, "the first frame")
    status = agent.status()
    assert status["running"] is True
    assert status["model"]["name"] == name
    assert status["update"]["state"] == "committed"
    assert status["update"]["figures"]["bytes_fetched"] == bundle.stat().st_size
    assert status["last_swap"]["dropped_by_swap"] == 0
    metrics = agent.fetch("/metrics").text
    assert 'ommatid_inference_seconds_count{source="camera"}' in metrics
    assert f'ommatid_model_info{{name="{name}",version="1"}} 1.0' in metrics
    until(lambda: agent.status()["spool"] == 0, "the server's confirmation")

    # when: the loop dies, it comes back with the model, and the supervisor lives on
    before = agent.children()
    os.kill(before["agent.loop"], signal.SIGKILL)
    until(lambda: agent.children().get("agent.loop") not in (None, before["agent.loop"]), "a new loop", 5)
    until(lambda: agent.status()["sources"] != [] and agent.status()["model"] is not None, "the loop's figures")
    assert agent.children()["agent.supervisor"] == before["agent.supervisor"]

    # when: the supervisor dies, the loop lives on
    before = agent.children()
    os.kill(before["agent.supervisor"], signal.SIGKILL)
    until(lambda: agent.children().get("agent.supervisor") not in (None, before["agent.supervisor"]), "a supervisor", 5)
    until(agent.ready, "a supervisor that answers")
    assert agent.children()["agent.loop"] == before["agent.loop"]

    # when: a second agent starts in the same folder, it is refused
    second = call("edge-agent", "run", "--state-dir", agent.state_dir, "--source", "x.avi", expect=1)
    assert "another edge-agent runs here" in second.stderr

    # when: the parent is killed, nobody stays behind
    left = agent.children().values()
    agent.stop(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "the end of the children")

    # then: the state on disk still tells what this device is; and it starts again
    status = agent.status()
    assert (status["running"], status["model"]["name"]) == (False, name)
    agent.start()
    until(agent.ready, "the second start")
    assert agent.stop() == 0
    agent.start()


def test_a_port_in_use_is_one_clear_error_and_ends_the_agent(fleet: RunningFleet, state_dir: Path) -> None:
    call("edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir, stdin=fleet.token())

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        arguments = ("--state-dir", state_dir, "--source", state_dir, "--http-port", str(taken))
        result = call("edge-agent", "run", *arguments, expect=1)

    assert f"{taken}: the port is in use" in result.stderr
    assert "--http-port" in result.stderr
