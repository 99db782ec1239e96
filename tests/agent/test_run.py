"""The agent as a person runs it: real processes, a real fleet server, a real video."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import make_bundle
from tests.support.fleet_server import FleetServer
from tests.support.loops import make_video
from tests.support.programs import call, until
from tests.support.running_agent import Agent


def asked(agent: Agent) -> dict[str, Any]:
    """Return what `edge-agent status` says, with and without a running agent."""
    return dict(json.loads(call("edge-agent", "status", "--state-dir", agent.state_dir, "--json").stdout))


@pytest.fixture
def agent(fleet: FleetServer, state_dir: Path, tmp_path: Path) -> Iterator[Agent]:
    video = make_video(tmp_path / "video.avi", frames=60)
    agent = Agent(f"cam-{os.urandom(4).hex()}", state_dir, f"{video}#loop")
    agent.enroll(fleet)
    agent.start()
    yield agent
    agent.stop()


def test_the_life_of_a_device(fleet: FleetServer, agent: Agent, tmp_path: Path) -> None:
    """One story, because its parts are slow to set up: no model, a rollout, deaths of each process, the end."""
    # given: a device without a model is healthy and not ready
    assert agent.fetch("/healthz").status_code == 200
    assert agent.fetch("/readyz").status_code == 503
    bundle = make_bundle(tmp_path, name=f"model-{os.urandom(3).hex()}")
    name = bundle.name.rsplit("-", 2)[0]
    fleet.call("push", bundle, "--keys", fleet.keys)

    # when: a model comes over the air
    options = ("--stages", "100%", "--soak", "1", "--wait", "--json")
    done = json.loads(fleet.call("rollout", "start", name, "1", *options).stdout)

    # then: it runs, and says so everywhere
    assert done["state"] == "finished"
    until(agent.ready, "the first frame")
    status = asked(agent)
    assert status["running"] is True
    assert status["model"]["name"] == name
    assert status["update"]["state"] == "committed"
    assert status["update"]["figures"]["bytes_fetched"] == bundle.stat().st_size
    assert status["last_swap"]["dropped_by_swap"] == 0
    metrics = agent.fetch("/metrics").text
    assert 'ommatid_inference_seconds_count{source="camera"}' in metrics
    assert f'ommatid_model_info{{name="{name}",version="1"}} 1.0' in metrics
    until(lambda: asked(agent)["spool"] == 0, "the server's confirmation")

    # when: the loop dies, it comes back with the model, and the supervisor lives on
    before = agent.children()
    os.kill(before["agent.loop"], signal.SIGKILL)
    until(lambda: agent.children().get("agent.loop") not in (None, before["agent.loop"]), "a new loop", 5)
    until(lambda: asked(agent)["sources"] != [] and asked(agent)["model"] is not None, "the loop's figures")
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
    status = asked(agent)
    assert (status["running"], status["model"]["name"]) == (False, name)
    agent.start()
    until(agent.ready, "the second start")
    assert agent.stop() == 0
    agent.start()


def test_a_port_in_use_is_one_clear_error_and_ends_the_agent(fleet: FleetServer, state_dir: Path) -> None:
    call("edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir, stdin=fleet.token().encode())

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        arguments = ("--state-dir", state_dir, "--source", state_dir, "--http-port", str(taken))
        result = call("edge-agent", "run", *arguments, expect=1)

    assert f"{taken}: the port is in use" in result.stderr
    assert "--http-port" in result.stderr
