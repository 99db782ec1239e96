"""Models that are bad, and one that does not fit: each is stopped where it shows, and the fleet runs what it ran."""

from tests.support.full_disk import small_disk
from tests.support.system import System


def test_a_model_that_fails_its_golden_samples_is_refused_in_the_trial_and_never_sees_a_frame(system: System) -> None:
    # given: two devices on a good version
    good = system.install()
    bad = system.push(fault="golden")

    # when: a bad one is rolled out
    done = system.finish(system.start_rollout(bad, stages="1,100%"), state="aborted")

    # then: it came to one device, which refused it by name
    (device,) = done["devices"]
    assert (device["state"], device["error"]) == ("refused", "GoldenMismatchError")
    assert len(done["waiting"]) == 1

    # then: both run the good one, and no frame was ever shown to the other
    system.wait_running(good)
    digests = {line["model"] for agent in system.agents for line in agent.seen()}
    updates = [body for agent in system.agents for body in system.confirmed(agent).of_kind("update")]
    refused = {body["model"]["digest"] for body in updates if body["model"]["version"] == bad}
    assert len(refused) == 1
    assert digests.isdisjoint(refused)


def test_a_model_that_fails_on_real_frames_is_rolled_back_in_probation(system: System) -> None:
    # given: two devices on a good version, and one that passes its trial
    good = system.install()
    bad = system.push(fault="frames")

    # when: it is rolled out to both at once
    done = system.finish(system.start_rollout(bad, max_failures="2"), state="aborted")

    # then: both went back by themselves, and said what was wrong
    assert [device["state"] for device in done["devices"]] == ["rolled_back", "rolled_back"]
    assert all("no finite number" in device["reason"] for device in done["devices"])
    system.wait_running(good)
    for agent in system.agents:
        story = [body for body in system.confirmed(agent).of_kind("update") if body["model"]["version"] == bad]
        assert [body["state"] for body in story][-2:] == ["probation", "rolled_back"]

    # when: it is offered again, it is not even tried
    done = system.finish(system.start_rollout(bad, max_failures="2"), state="aborted")
    assert {device["error"] for device in done["devices"]} == {"FailedBeforeError"}
    system.wait_running(good)


def test_a_model_for_which_a_device_has_no_room_stops_the_rollout_and_leaves_nothing(system: System) -> None:
    # given: a device that runs a good version, with room for half a bundle
    good = system.install()
    agent = system.agents[0]
    agent.stop()
    agent.start(wrapper=small_disk(agent.state_dir / "downloads", "16k"))
    store = sorted((agent.state_dir / "store").iterdir())

    # when: the next one is rolled out
    done = system.finish(system.start_rollout(system.push()), state="aborted")

    # then: the device says what is wrong and where, runs what it ran, and has nothing of the other
    (failed,) = (device for device in done["devices"] if device["id"] == agent.name)
    assert (failed["state"], failed["error"]) == ("failed", "StorageError")
    assert str(agent.state_dir / "downloads") in failed["reason"]
    system.wait_running(good)
    assert sorted((agent.state_dir / "store").iterdir()) == store
    agent.stop()
    agent.start()
