"""Mosquitto and the server die in the middle of rollouts: each rollout completes, and no report is lost or doubled."""

import pytest

from tests.support.programs import until
from tests.support.system import System, wait_for_state

MOMENTS = ("offered", "downloading", "trial", "probation", "committed")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollout_completes_when_mosquitto_and_the_server_are_killed(system: System, moment: str) -> None:
    # given: a rollout that begins with one device
    version = system.push()
    rollout = system.start_rollout(version, stages="1,100%")

    # when: Mosquitto dies in the middle of the first device's update, and comes back by itself
    first = wait_for_state(system.agents, version, moment)
    died = system.fleet.broker_pid
    system.fleet.kill_broker()
    until(lambda: system.fleet.broker_pid not in {0, died}, "another Mosquitto")

    # when: the server dies in the middle of the second one's, and is started again
    wait_for_state([agent for agent in system.agents if agent is not first], version, moment)
    system.fleet.kill()
    system.fleet.start()

    # then: both devices run the new version, and no update failed on the way
    system.finish_everywhere(rollout)
    system.wait_running(version)

    # then: every report is stored, once
    for agent in system.agents:
        stored = system.confirmed(agent)
        ends = [body for body in stored.of_kind("update") if body["model"]["version"] == version]
        assert [body["state"] for body in ends].count("committed") == 1
        assert ends[-1]["state"] == "committed"


def test_nothing_is_lost_while_mosquitto_and_server_die_again_and_again(system: System) -> None:
    # given: a rollout to both devices at once
    uncounted = [system.uncounted(agent) for agent in system.agents]
    version = system.push()
    rollout = system.start_rollout(version)

    # when: at each step of it the server dies with its Mosquitto; only then the server is started again
    for moment in ("downloading", "trial", "probation"):
        wait_for_state(system.agents, version, moment)
        system.fleet.kill()
        system.fleet.kill_broker()
        system.fleet.start()

    # then: it completes, and the server's telemetry accounts for each single frame of that time
    system.finish_everywhere(rollout)
    system.wait_running(version)
    assert [system.uncounted(agent) for agent in system.agents] == uncounted
