"""Rollouts on a real database, with devices that report in their own time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_server.errors import ConflictError, NotFoundError
from fleet_server.rollouts.views import RolloutRequest
from ommatid.contract.messages import UpdateState
from tests.support.small_fleet import SmallFleet, reference

FLEET = ("cam-a", "cam-b", "cam-c")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    fleet = SmallFleet(tmp_path)
    fleet.push("1")
    fleet.push("2")
    fleet.enrol(*FLEET)
    yield fleet
    fleet.database.close()


def carry_through(fleet: SmallFleet, version: str) -> str:
    """Roll a version out to everybody, devices without trouble."""
    rollout = fleet.start(version).id
    for _ in range(4):
        fleet.runner.tick()
        for name, state in fleet.parts(rollout).items():
            if state == "offered":
                fleet.commit(name, version)
        fleet.runner.tick()
        fleet.time.pass_s(5)
    assert fleet.desk.status(rollout).state == "finished"
    return rollout


def test_a_rollout_goes_stage_by_stage_to_the_whole_fleet(fleet: SmallFleet) -> None:
    # given
    rollout = fleet.start("1").id

    # when
    fleet.runner.tick()
    (canary,) = fleet.parts(rollout)
    fleet.commit(canary, "1")
    fleet.runner.tick()

    # then: the stage soaks
    assert fleet.parts(rollout) == {canary: "committed"}
    assert fleet.desk.status(rollout).stages[0].state == "soaking"

    # when
    fleet.time.pass_s(5)
    fleet.runner.tick()

    # then
    assert fleet.parts(rollout) == {canary: "committed"} | {name: "offered" for name in FLEET if name != canary}
    assert set(fleet.desired().values()) == {"1"}
    assert len(fleet.downlink.sent) == 3


def test_the_figures_of_a_finished_rollout_can_be_computed_from_its_status(fleet: SmallFleet) -> None:
    status = fleet.desk.status(carry_through(fleet, "1"))

    assert status.push_to_committed_s == 5
    assert [stage.state for stage in status.stages] == ["done", "done"]
    assert status.finished_at is not None


def test_an_offer_follows_the_reports_of_its_device(fleet: SmallFleet) -> None:
    rollout = fleet.start("1").id
    fleet.runner.tick()
    (canary,) = fleet.parts(rollout)

    for state in (UpdateState.DOWNLOADING, UpdateState.VERIFIED, UpdateState.TRIAL, UpdateState.PROBATION):
        fleet.update(canary, "1", state)
        fleet.runner.tick()
        assert fleet.parts(rollout) == {canary: state.value}


def test_a_failed_trial_aborts_and_everybody_goes_back(fleet: SmallFleet) -> None:
    # given
    carry_through(fleet, "1")
    rollout = fleet.start("2", stages="2,100%").id
    fleet.runner.tick()
    good, bad = fleet.parts(rollout)
    fleet.commit(good, "2")

    # when
    fleet.update(bad, "2", UpdateState.TRIAL, UpdateState.REFUSED, error="GoldenMismatchError", reason="agreement 0.4")
    fleet.runner.tick()

    # then
    status = fleet.desk.status(rollout)
    assert status.state == "aborted"
    assert bad in (status.reason or "")
    assert {device.id: (device.state, device.error) for device in status.devices} == {
        good: ("returning", None),
        bad: ("refused", "GoldenMismatchError"),
    }
    assert set(fleet.desired().values()) == {"1"}

    # when
    fleet.show(good, model=reference("1"), update="idle")
    fleet.runner.tick()

    # then
    assert fleet.parts(rollout)[good] == "returned"
    assert not fleet.runner.tick()


def test_a_refused_document_counts_as_a_failure_of_that_device(fleet: SmallFleet) -> None:
    rollout = fleet.start("1").id
    fleet.runner.tick()
    (canary,) = fleet.parts(rollout)

    fleet.refuse(canary, "SignatureError", "signed by a stranger")
    fleet.runner.tick()

    status = fleet.desk.status(rollout)
    assert status.state == "aborted"
    assert (status.devices[0].error, status.devices[0].reason) == ("SignatureError", "signed by a stranger")
    assert fleet.desired()[canary] is None


def test_an_old_document_that_a_broker_brings_back_is_no_failure_of_the_offer(fleet: SmallFleet) -> None:
    rollout = fleet.start("1").id
    fleet.runner.tick()
    (canary,) = fleet.parts(rollout)

    fleet.refuse(canary, "ReplayedError", "version 5, but 6 was accepted")
    fleet.runner.tick()
    fleet.commit(canary, "1")
    fleet.runner.tick()

    assert fleet.desk.status(rollout).state != "aborted"
    assert fleet.parts(rollout)[canary] == "committed"


def test_a_restart_at_any_moment_changes_nothing(fleet: SmallFleet) -> None:
    # given
    rollout = fleet.start("1").id

    # when: every tick is the first one of a new server
    for _ in range(6):
        assert fleet.new_runner().tick() in {True, False}
        for name, state in fleet.parts(rollout).items():
            if state == "offered":
                fleet.commit(name, "1")
        fleet.time.pass_s(5)

    # then
    assert fleet.desk.status(rollout).state == "finished"
    assert [fleet.offers(name) for name in FLEET] == [1, 1, 1]


def test_reports_of_an_earlier_offer_do_not_touch_the_new_one(fleet: SmallFleet) -> None:
    # given: the first rollout of this release was aborted
    first = fleet.start("1").id
    fleet.runner.tick()
    (canary,) = fleet.parts(first)
    fleet.desk.abort(first)
    fleet.runner.tick()
    second = fleet.start("1", stages="100%").id
    fleet.runner.tick()

    # when: the device ends the second one well, then the server reads everything again
    fleet.commit(canary, "1")
    fleet.new_runner().tick()

    # then
    assert fleet.parts(second)[canary] == "committed"
    assert fleet.parts(first) == {canary: "returned"}


def test_a_device_that_appears_later_joins_the_finished_rollout(fleet: SmallFleet) -> None:
    rollout = carry_through(fleet, "1")

    fleet.enrol("cam-late")
    fleet.runner.tick()

    assert fleet.parts(rollout)["cam-late"] == "offered"
    assert fleet.desired()["cam-late"] == "1"


def test_an_aborted_rollout_leaves_newcomers_to_the_last_finished_one(fleet: SmallFleet) -> None:
    carry_through(fleet, "1")
    fleet.desk.abort(fleet.start("2").id)

    fleet.enrol("cam-late")
    fleet.runner.tick()

    assert fleet.desired()["cam-late"] == "1"


def test_a_finished_rollout_can_be_undone_until_another_takes_its_place(fleet: SmallFleet) -> None:
    # given
    first = carry_through(fleet, "1")
    second = carry_through(fleet, "2")

    # then
    with pytest.raises(ConflictError):
        fleet.desk.abort(first)

    # when
    fleet.desk.abort(second)
    fleet.runner.tick()

    # then
    assert set(fleet.desired().values()) == {"1"}


def test_pause_holds_offers_back_and_resume_lets_them_go(fleet: SmallFleet) -> None:
    rollout = fleet.start("1").id

    assert fleet.desk.pause(rollout).state == "paused"
    fleet.runner.tick()
    assert fleet.parts(rollout) == {}

    assert fleet.desk.resume(rollout).state == "running"
    fleet.runner.tick()
    assert len(fleet.parts(rollout)) == 1


def test_a_second_rollout_waits_for_the_first(fleet: SmallFleet) -> None:
    fleet.start("1")

    with pytest.raises(ConflictError, match=r"rollout 1 of detector 1 is running"):
        fleet.start("2")


def test_a_release_that_suits_no_device_is_refused_before_it_starts(fleet: SmallFleet) -> None:
    fleet.push("9", hardware=("x86_64",))

    with pytest.raises(ConflictError, match="cam-a is aarch64; the release is for x86_64"):
        fleet.start("9")


def test_a_version_that_was_not_pushed_is_named_with_those_that_were(fleet: SmallFleet) -> None:
    with pytest.raises(NotFoundError) as caught:
        fleet.start("7")

    assert "1, 2" in (caught.value.hint or "")


def test_two_builds_for_one_hardware_need_a_choice(fleet: SmallFleet) -> None:
    fleet.push("2", target="fp32", hardware=("aarch64", "x86_64"))

    with pytest.raises(ConflictError, match="fp32, int8-arm"):
        fleet.start("2")
    assert fleet.start("2", target="fp32").state == "running"


def test_a_plan_changes_nothing(fleet: SmallFleet) -> None:
    planned = fleet.desk.plan(RolloutRequest(model="detector", version="1", stages="1,100%"))

    assert [len(devices) for devices in planned.devices] == [1, 2]
    assert fleet.desk.every() == []


def test_the_thread_reacts_to_a_change_by_itself(tmp_path: Path) -> None:
    # given
    fleet = SmallFleet(tmp_path, real_time=True)
    fleet.push("1")
    fleet.enrol("cam-a")
    fleet.runner.start()

    # when
    rollout = fleet.start("1", stages="100%", soak_s=0).id
    seen = 0
    while not fleet.parts(rollout):
        seen = fleet.changes.wait(seen, timeout_s=5)
    fleet.commit("cam-a", "1")
    while fleet.desk.status(rollout).state != "finished":
        seen = fleet.changes.wait(seen, timeout_s=5)

    # then
    fleet.runner.stop()
    assert fleet.parts(rollout) == {"cam-a": "committed"}
    fleet.database.close()
