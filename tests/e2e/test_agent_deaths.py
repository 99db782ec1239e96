"""An agent, or one of its processes, dies: the update goes on, and so does the camera."""

import os
import signal
import time
from datetime import datetime

import pytest

from tests.support.programs import until
from tests.support.system import FPS, Agent, System, wait_for_state

MOST_DARK_S = 2.0
"""How long a camera may be without inference when its process dies."""
WATCHED = 60
"""So many frames are looked at around the death of a supervisor, which takes a second."""


@pytest.mark.parametrize("moment", ["downloading", "trial", "loaded", "probation"])
def test_a_rollout_completes_when_an_agent_is_killed(system: System, moment: str) -> None:
    # given: a rollout under way
    version = system.push()
    rollout = system.start_rollout(version)
    victim = wait_for_state(system.agents, version, moment)

    # when: the power fails, and comes back
    victim.kill()
    victim.start()

    # then: the device has the new version, and what it said of it is stored once
    system.finish_everywhere(rollout)
    system.wait_running(version)
    stored = system.confirmed(victim)
    told = [body["state"] for body in stored.of_kind("update") if body["model"]["version"] == version]
    assert told.count("committed") == 1


def test_a_loop_that_dies_is_back_within_two_seconds_and_the_supervisor_stays(system: System) -> None:
    # given: an agent that watches its video
    agent = system.agents[0]
    until(lambda: agent.seen()[-1:] and agent.seen()[-1]["model"] is not None, "frames")
    before = agent.children()
    told = len(agent.seen())

    # when: the loop crashes
    died = time.time()
    os.kill(before["agent.loop"], signal.SIGKILL)

    # then: another one infers frames with the same model soon, and nobody else noticed
    until(lambda: any(captured_at(line) > died + 0.2 for line in agent.seen()[told:]), "frames again")
    first = next(line for line in agent.seen()[told:] if captured_at(line) > died + 0.2)
    assert captured_at(first) - died < MOST_DARK_S
    assert first["objects"]
    after = agent.children()
    assert after["agent.supervisor"] == before["agent.supervisor"]
    assert after["agent.loop"] != before["agent.loop"]


def test_a_supervisor_that_dies_leaves_no_gap_in_what_the_loop_sees(system: System) -> None:
    # given: an agent that watches its video
    agent = system.agents[0]
    until(lambda: _counts(agent)[0] > 0, "frames")
    before, (frames, dropped), started = agent.children(), _counts(agent), time.monotonic()

    # when: the supervisor crashes, and another one takes its place
    os.kill(before["agent.supervisor"], signal.SIGKILL)
    until(lambda: agent.children().get("agent.supervisor") not in (None, before["agent.supervisor"]), "a supervisor")
    until(lambda: _counts(agent)[0] > frames + WATCHED, "the new supervisor's figures")

    # then: the loop is the same, and has inferred a frame for each one that its video has shown meanwhile
    assert agent.children()["agent.loop"] == before["agent.loop"]
    frames_after, dropped_after = _counts(agent)
    shown = (time.monotonic() - started) * FPS
    assert frames_after - frames > 0.8 * shown
    assert frames_after + dropped_after - frames - dropped > 0.95 * shown - 2


def captured_at(line: dict[str, str]) -> float:
    """Return when a frame was captured, in seconds since 1970."""
    return datetime.fromisoformat(line["captured_at"]).timestamp()


def _counts(agent: Agent) -> tuple[int, int]:
    """Return how many frames the loop has inferred and dropped since its own start."""
    if not agent.answers() or not (sources := agent.status()["sources"]):
        return 0, 0
    return sources[0]["frames"], sources[0]["dropped"]
