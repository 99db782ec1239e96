"""The way of a model: pushed, offered, fetched, tried, swapped in, watched, committed, and seen by the server."""

from tests.support.programs import until
from tests.support.system import MODEL, STATES, System


def test_a_second_version_replaces_the_first_on_every_device_without_losing_a_frame(system: System) -> None:
    # given: two devices that run one version
    system.install()
    already = {agent.name: len(agent.seen()) for agent in system.agents}

    # when: the next is pushed and rolled out, one device first
    version = system.push()
    done = system.finish(system.start_rollout(version, stages="1,100%"))

    # then: both committed it, and say so, on the device and on the server
    assert [device["state"] for device in done["devices"]] == ["committed", "committed"]
    assert [device["stage"] for device in done["devices"]] == [1, 2]
    system.wait_running(version)
    for agent in system.agents:
        status = agent.status()
        assert status["update"]["state"] == "committed"
        assert status["last_swap"]["dropped_by_swap"] == 0
        seen = [line.get("error") for line in agent.seen()[already[agent.name] :]]
        assert seen
        assert set(seen) == {None}

    # then: the update's whole story was reported, in order
    for agent in system.agents:
        stored = system.confirmed(agent)
        story = [body for body in stored.of_kind("update") if body["model"]["version"] == version]
        assert [body["state"] for body in story] == list(STATES)


def test_telemetry_arrives_and_counts_every_frame(system: System) -> None:
    # given: an agent with a model
    agent = system.agents[0]
    uncounted = system.uncounted(agent)

    # when: it goes on for a while
    before = len(system.stored(agent).of_kind("window"))
    until(lambda: len(system.stored(agent).of_kind("window")) > before + 1, "telemetry windows")

    # then: the windows add up to the frames in its results, and say what was seen by which model
    assert system.uncounted(agent) == uncounted
    windows = system.stored(agent).of_kind("window")[before:]
    assert {label for window in windows for label in window["classes"]} == {"bright", "dark"}
    assert {window["model"]["name"] for window in windows} == {MODEL}
