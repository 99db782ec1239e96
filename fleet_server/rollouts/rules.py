"""The rules of a rollout: from facts to the next actions, with no clock, database or network of their own.

`advance` is called again and again; it may be called twice on the same facts, after a restart, or with half of its
last actions done. Whatever it decided is visible in the facts that it is given next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet_server.rollouts.facts import (
    DeviceFacts,
    Member,
    MemberState,
    ReleaseFacts,
    RolloutFacts,
    RolloutState,
    Selection,
    judge,
)
from fleet_server.rollouts.stages import Amount, quotas, rank

SHOWN: Final = 5
"""Devices that a reason names; of the others it says how many."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Assign a release to a device."""

    device: str
    stage: int
    release: ReleaseFacts


@dataclass(frozen=True, slots=True)
class Settle:
    """Note that a device is done: it runs the release, or is back on what it ran before."""

    device: str
    state: MemberState


@dataclass(frozen=True, slots=True)
class SendBack:
    """Assign a device what it was assigned before this rollout."""

    device: str


@dataclass(frozen=True, slots=True)
class CompleteStage:
    """Go on from `stage` to the next."""

    stage: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop for good; the devices are sent back."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every stage is complete."""


Action = Offer | Settle | SendBack | CompleteStage | Pause | Abort | Finish


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage before it runs: how many devices it reaches, and which it adds if all are online."""

    amount: str
    reach: int
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotEligible:
    """A device that a rollout will pass over, and why."""

    device: str
    reason: str
    final: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rollout would do to the fleet as it is now."""

    stages: tuple[StagePlan, ...]
    not_eligible: tuple[NotEligible, ...]

    @property
    def hopeless(self) -> bool:
        """Tell whether there are devices, and none can ever take the release as things are."""
        reachable = any(stage.devices for stage in self.stages) or any(not one.final for one in self.not_eligible)
        return bool(self.not_eligible) and not reachable


def plan(salt: str, selection: Selection, stages: tuple[Amount, ...], devices: Sequence[DeviceFacts]) -> Plan:
    """Return which devices each stage would add, and which devices it would pass over and why."""
    verdicts = [(device.id, judge(device, selection)) for device in devices]
    order = sorted((device for device, verdict in verdicts if verdict.release), key=lambda one: rank(salt, one))
    reach = (0, *quotas(stages, len(order)))
    return Plan(
        stages=tuple(
            StagePlan(amount=str(amount), reach=after, devices=tuple(order[before:after]))
            for amount, before, after in zip(stages, reach, reach[1:], strict=False)
        ),
        not_eligible=tuple(
            NotEligible(device, verdict.reason, verdict.final)
            for device, verdict in sorted(verdicts, key=lambda one: one[0])
            if not verdict.release
        ),
    )


def advance(rollout: RolloutFacts, devices: Sequence[DeviceFacts], now: float) -> tuple[Action, ...]:
    """Return what to do next; empty when there is nothing to do but wait.

    Args:
        rollout: The rollout.
        devices: Every device of its tenant.
        now: Seconds since the epoch.
    """
    match rollout.state:
        case RolloutState.ABORTED:
            return _take_back(devices)
        case RolloutState.PAUSED:
            return _settle(devices) or _too_many_failures(rollout, devices)
        case RolloutState.FINISHED:
            return _settle(devices) or _welcome_newcomers(rollout, devices)
        case RolloutState.RUNNING:
            return (
                _settle(devices)
                or _too_many_failures(rollout, devices)
                or _offers(rollout, devices)
                or _close_stage(rollout, devices, now)
            )


def failure_limit(rollout: RolloutFacts, members: int) -> int:
    """Return the number of failed devices at which a rollout aborts, with so many devices offered to."""
    return rollout.policy.max_failures.of(members)


def _too_many_failures(rollout: RolloutFacts, devices: Sequence[DeviceFacts]) -> tuple[Action, ...]:
    members = {device.id: device.member for device in devices if device.member is not None}
    failed = sorted(device for device, member in members.items() if member.state.failure)
    if not failed or len(failed) < failure_limit(rollout, len(members)):
        return ()
    return (Abort(f"{len(failed)} of {_count(len(members))} could not take the release: {_some(failed)}"),)


def _offers(rollout: RolloutFacts, devices: Sequence[DeviceFacts]) -> tuple[Offer, ...]:
    """Fill the current stage with online devices; those offline come in when they are back."""
    reached = sum(device.member is not None for device in devices)
    open_to: list[tuple[DeviceFacts, ReleaseFacts]] = []
    for device in devices:
        release = judge(device, rollout.selection).release
        if device.member is None and release is not None:
            open_to.append((device, release))
    free = max(0, quotas(rollout.policy.stages, reached + len(open_to))[rollout.stage] - reached)
    candidates = sorted((one for one in open_to if one[0].online), key=lambda one: rank(rollout.salt, one[0].id))
    return tuple(Offer(device.id, rollout.stage, release) for device, release in candidates[:free])


def _close_stage(rollout: RolloutFacts, devices: Sequence[DeviceFacts], now: float) -> tuple[Action, ...]:
    """Complete the stage when its devices have ended, enough of them well, and the soak time is over."""
    crew = [(device, device.member) for device in devices if device.member and device.member.stage == rollout.stage]
    if not crew:
        # An empty stage of a small fleet passes; a rollout that has reached nobody at all waits.
        return _next_stage(rollout) if any(device.member for device in devices) else ()
    waiting = [device for device, member in crew if member.state.pending]
    silent = [device.id for device, member in crew if _silent(device, member, rollout, now)]
    if len(waiting) > len(silent):
        return ()
    committed = [member for _, member in crew if member.state is MemberState.COMMITTED]
    needed = rollout.policy.min_success.of(len(crew))
    if len(committed) < min(needed, len(crew)):
        told = f"stage {rollout.stage + 1}: {len(committed)} of {_count(len(crew))} committed, {needed} needed"
        if silent:
            return (Pause(f"{told}; fell silent during the update: {_some(sorted(silent))}"),)
        return (Abort(told),)
    soaked_at = max(member.ended_at or now for member in committed) + rollout.policy.soak_s
    return _next_stage(rollout) if now >= soaked_at else ()


def _silent(device: DeviceFacts, member: Member, rollout: RolloutFacts, now: float) -> bool:
    """Tell whether a device took the offer, went offline, and has been waited for long enough."""
    since = max(member.offered_at, rollout.watched_from)
    return member.state.pending and not device.online and now - since >= rollout.policy.patience_s


def _next_stage(rollout: RolloutFacts) -> tuple[Action, ...]:
    last = len(rollout.policy.stages) - 1
    return (CompleteStage(rollout.stage),) if rollout.stage < last else (Finish(),)


def _settle(devices: Sequence[DeviceFacts]) -> tuple[Action, ...]:
    """Believe a device's own state too: the report of the commit may be late, the model runs."""
    return tuple(
        Settle(device.id, MemberState.COMMITTED)
        for device in devices
        if device.member and device.member.state.pending and device.online and device.running == device.member.digest
    )


def _welcome_newcomers(rollout: RolloutFacts, devices: Sequence[DeviceFacts]) -> tuple[Action, ...]:
    """Offer to devices that appeared after the end, until as many of all have failed as would have aborted."""
    if not rollout.standing:
        return ()
    return () if _too_many_failures(rollout, devices) else _offers(rollout, devices)


def _take_back(devices: Sequence[DeviceFacts]) -> tuple[Action, ...]:
    actions: list[Action] = []
    for device in devices:
        if device.member is None:
            continue
        if device.assigned:
            actions.append(SendBack(device.id))
        elif device.member.state is MemberState.RETURNING and _is_back(device, device.member):
            actions.append(Settle(device.id, MemberState.RETURNED))
    return tuple(actions)


def _is_back(device: DeviceFacts, member: Member) -> bool:
    return not member.has_previous or (device.running is not None and device.running != member.digest)


def _count(devices: int) -> str:
    return f"{devices} device{'' if devices == 1 else 's'}"


def _some(devices: Sequence[str]) -> str:
    more = f" and {len(devices) - SHOWN} more" if len(devices) > SHOWN else ""
    return ", ".join(devices[:SHOWN]) + more
