"""The rules, one behaviour at a time."""

from dataclasses import replace

import pytest

from fleet_server.rollouts.facts import (
    DeviceFacts,
    Member,
    MemberState,
    Policy,
    ReleaseFacts,
    RolloutFacts,
    RolloutState,
    Selection,
    follow,
    judge,
    version_key,
)
from fleet_server.rollouts.rules import Abort, CompleteStage, Finish, Offer, Pause, SendBack, Settle, advance, plan
from fleet_server.rollouts.stages import parse_amount, parse_stages, quotas, rank
from ommatid.contract.messages import UpdateState
from ommatid.errors import BadInputError

RELEASE = ReleaseFacts(id=2, target="int8-arm", digest="b" * 64, hardware=("aarch64",), minimum_agent="0.2.0")
SELECTION = Selection((RELEASE,))


def rollout(stages: str = "1,100%", max_failures: str = "1", **changes: object) -> RolloutFacts:
    policy = Policy(
        stages=parse_stages(stages),
        soak_s=10,
        max_failures=parse_amount(max_failures, "--max-failures"),
        patience_s=100,
    )
    return replace(RolloutFacts("salt", SELECTION, policy, RolloutState.RUNNING, 0), **changes)  # type: ignore[arg-type]


def device(name: str, state: MemberState | None = None, stage: int = 0, **changes: object) -> DeviceFacts:
    facts = DeviceFacts(name, online=True, arch="aarch64", agent="0.2.0")
    if state is not None:
        ended = None if state.pending else 50.0
        facts = replace(facts, assigned=True, member=Member(stage, state, RELEASE.digest, 0.0, ended))
    return replace(facts, **changes)  # type: ignore[arg-type]


def in_order(*names: str) -> list[str]:
    return sorted(names, key=lambda name: rank("salt", name))


@pytest.mark.parametrize(
    ("stages", "eligible", "expected"),
    [
        ("5%,25%,100%", 100, (5, 25, 100)),
        ("5%,25%,100%", 3, (1, 2, 3)),
        ("5%,25%,100%", 2, (1, 2, 2)),
        ("1,10,100%", 5, (1, 5, 5)),
        ("5%,25%,100%", 0, (0, 0, 0)),
        ("0.5%,100%", 1000, (5, 1000)),
    ],
)
def test_each_stage_reaches_its_share_and_at_least_one_device_more(
    stages: str, eligible: int, expected: tuple[int, ...]
) -> None:
    assert quotas(parse_stages(stages), eligible) == expected


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "x", "1.5", "50%,10%", "3,3", "-1", "1,,2", "1e3"])
def test_stages_that_make_no_sense_are_refused_with_a_hint(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_stages(text)

    assert "--stages" in str(caught.value)
    assert caught.value.hint


def test_a_plan_names_the_devices_of_each_stage_and_why_others_are_passed_over() -> None:
    # given
    fleet = [
        device("cam-a"),
        device("cam-b"),
        device("old", agent="0.1.9"),
        device("x86", arch="x86_64"),
        device("new", arch=None, agent=None),
    ]

    # when
    planned = plan("salt", SELECTION, parse_stages("1,100%"), fleet)

    # then
    assert [stage.devices for stage in planned.stages] == [(name,) for name in in_order("cam-a", "cam-b")]
    assert {one.device: one.reason for one in planned.not_eligible} == {
        "new": "has not said hello yet",
        "old": "runs agent 0.1.9; needs agent 0.2.0 or later",
        "x86": "is x86_64; the release is for aarch64",
    }
    assert not planned.hopeless


def test_a_plan_without_a_device_that_could_ever_take_the_release_is_hopeless() -> None:
    assert plan("salt", SELECTION, parse_stages("1"), [device("x86", arch="x86_64")]).hopeless
    assert not plan("salt", SELECTION, parse_stages("1"), []).hopeless


def test_a_device_gets_the_build_for_its_hardware_and_only_with_the_tags_asked_for() -> None:
    # given
    for_x86 = replace(RELEASE, id=3, target="int8-x86", hardware=("x86_64",))
    selection = Selection((RELEASE, for_x86), frozenset({"gate"}))

    # then
    assert judge(device("a", tags=frozenset({"gate"})), selection).release == RELEASE
    assert judge(device("b", tags=frozenset({"gate", "x"}), arch="x86_64"), selection).release == for_x86
    assert judge(device("c"), selection).reason == "has no tag gate"


@pytest.mark.parametrize(
    ("older", "newer"), [("0.1.0", "0.2.0"), ("0.9", "0.10"), ("1", "1.0.1"), ("", "0.0.1"), ("0.1.0.dev3", "0.1.1")]
)
def test_versions_compare_by_their_numbers(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


def test_the_first_stage_offers_to_the_first_online_device_alone() -> None:
    first, second, third = in_order("cam-a", "cam-b", "cam-c")
    fleet = [device(first, online=False), device(second), device(third)]

    assert advance(rollout(), fleet, 0) == (Offer(second, 0, RELEASE),)


def test_nothing_happens_while_a_device_is_busy_or_the_soak_time_runs() -> None:
    assert advance(rollout(), [device("a", MemberState.TRIAL), device("b")], 20) == ()
    assert advance(rollout(), [device("a", MemberState.COMMITTED), device("b")], 59.9) == ()


def test_a_stage_is_complete_after_its_soak_time() -> None:
    fleet = [device("a", MemberState.COMMITTED), device("b")]

    assert advance(rollout(), fleet, 60) == (CompleteStage(0),)
    assert advance(rollout(stage=1), fleet, 60) == (Offer("b", 1, RELEASE),)


def test_the_rollout_finishes_after_the_last_stage_and_offline_devices_do_not_block_it() -> None:
    fleet = [device("a", MemberState.COMMITTED), device("b", MemberState.COMMITTED, 1), device("away", online=False)]

    assert advance(rollout(stage=1), fleet, 60) == (Finish(),)


def test_a_finished_rollout_welcomes_devices_that_come_later() -> None:
    fleet = [device("a", MemberState.COMMITTED), device("late")]
    finished = rollout(stage=1, state=RolloutState.FINISHED)

    assert advance(finished, fleet, 60) == ()
    assert advance(replace(finished, standing=True), fleet, 60) == (Offer("late", 1, RELEASE),)


def test_a_finished_rollout_stops_welcoming_when_too_many_have_failed() -> None:
    fleet = [device("a", MemberState.COMMITTED), device("b", MemberState.REFUSED, 1), device("late")]

    assert advance(rollout(stage=1, state=RolloutState.FINISHED, standing=True), fleet, 60) == ()


@pytest.mark.parametrize("state", [MemberState.REFUSED, MemberState.ROLLED_BACK, MemberState.FAILED])
@pytest.mark.parametrize("now", [RolloutState.RUNNING, RolloutState.PAUSED])
def test_a_rollout_aborts_when_too_many_devices_fail(state: MemberState, now: RolloutState) -> None:
    fleet = [device("a", state), device("b")]

    assert advance(rollout(state=now), fleet, 20) == (Abort("1 of 1 device could not take the release: a"),)


def test_failures_below_the_threshold_do_not_abort() -> None:
    fleet = [device(f"d{n}", MemberState.COMMITTED) for n in range(19)] + [device("bad", MemberState.FAILED)]

    assert advance(rollout("20", "2"), fleet, 60) == (Finish(),)
    assert isinstance(advance(rollout("20", "5%"), fleet, 60)[0], Abort)


def test_a_stage_with_too_few_successes_aborts() -> None:
    fleet = [device("a", MemberState.COMMITTED), device("b", MemberState.FAILED)]

    assert advance(rollout("2", "5"), fleet, 60) == (Abort("stage 1: 1 of 2 devices committed, 2 needed"),)


def test_a_canary_that_fell_silent_pauses_the_rollout_and_resuming_waits_again() -> None:
    # given
    fleet = [device("a", MemberState.PROBATION, online=False), device("b")]

    # then
    assert advance(rollout(), fleet, 99) == ()
    assert advance(rollout(), fleet, 100) == (
        Pause("stage 1: 0 of 1 device committed, 1 needed; fell silent during the update: a"),
    )
    assert advance(rollout(watched_from=100), fleet, 199) == ()


def test_a_few_silent_devices_do_not_block_a_large_stage() -> None:
    fleet = [device(f"d{n}", MemberState.COMMITTED) for n in range(19)]
    fleet.append(device("gone", MemberState.DOWNLOADING, online=False))

    assert advance(rollout("20"), fleet, 99) == ()
    assert advance(rollout("20"), fleet, 100) == (Finish(),)


def test_a_paused_rollout_offers_nothing() -> None:
    assert advance(rollout(state=RolloutState.PAUSED), [device("a"), device("b")], 0) == ()


def test_the_devices_own_state_is_believed_when_the_report_is_late() -> None:
    fleet = [device("a", MemberState.PROBATION, running=RELEASE.digest)]

    assert advance(rollout(), fleet, 1) == (Settle("a", MemberState.COMMITTED),)


def test_an_aborted_rollout_sends_back_every_device_that_is_assigned_the_release() -> None:
    # given
    fleet = [
        device("done", MemberState.COMMITTED),
        device("busy", MemberState.TRIAL),
        device("refused", MemberState.REFUSED),
        device("never"),
        device("back", MemberState.RETURNING, assigned=False, running="a" * 64),
        device("not-yet", MemberState.RETURNING, assigned=False, running=RELEASE.digest),
    ]

    # when
    actions = advance(rollout(state=RolloutState.ABORTED), fleet, 60)

    # then
    assert actions == (
        SendBack("done"),
        SendBack("busy"),
        SendBack("refused"),
        Settle("back", MemberState.RETURNED),
    )


@pytest.mark.parametrize(
    ("current", "reported", "expected"),
    [
        (MemberState.OFFERED, UpdateState.DOWNLOADING, MemberState.DOWNLOADING),
        (MemberState.PROBATION, UpdateState.COMMITTED, MemberState.COMMITTED),
        (MemberState.TRIAL, UpdateState.REFUSED, MemberState.REFUSED),
        (MemberState.REFUSED, UpdateState.TRIAL, MemberState.REFUSED),
        (MemberState.COMMITTED, UpdateState.PROBATION, MemberState.COMMITTED),
        (MemberState.COMMITTED, UpdateState.ROLLED_BACK, MemberState.ROLLED_BACK),
        (MemberState.RETURNING, UpdateState.FAILED, MemberState.RETURNING),
        (MemberState.OFFERED, UpdateState.IDLE, MemberState.OFFERED),
    ],
)
def test_an_end_is_an_end_except_that_a_commit_may_be_given_up(
    current: MemberState, reported: UpdateState, expected: MemberState
) -> None:
    assert follow(current, reported) is expected
