"""A rollout as operators see it: the API's answer, `fleet rollout status --json`, and the page's cards."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.database.models import Rollout, RolloutDevice
from fleet_server.rollouts.facts import (
    DEFAULT_MAX_FAILURES,
    DEFAULT_MIN_SUCCESS,
    DEFAULT_PATIENCE_S,
    DEFAULT_SOAK_S,
    MemberState,
    Policy,
    RolloutState,
    judge,
)
from fleet_server.rollouts.rules import Plan, plan
from fleet_server.rollouts.stages import DEFAULT_STAGES, quotas
from fleet_server.rollouts.store import find_releases, load_devices, load_policy, load_selection
from ommatid.contract.messages import Identifier


class RolloutRequest(BaseModel):
    """What `fleet rollout start` asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(max_length=100)
    version: str = Field(max_length=100)
    target: str | None = Field(None, max_length=100)
    tags: tuple[Identifier, ...] = ()
    stages: str = Field(DEFAULT_STAGES, max_length=200, description="cumulative shares or counts of devices")
    soak_s: float = Field(DEFAULT_SOAK_S, ge=0, le=30 * 86400, description="wait after the last commit of a stage")
    max_failures: str = Field(DEFAULT_MAX_FAILURES, max_length=20, description="abort at so many failed devices")
    min_success: str = Field(DEFAULT_MIN_SUCCESS, max_length=20, description="how much of a stage must commit")
    patience_s: float = Field(DEFAULT_PATIENCE_S, ge=1, le=30 * 86400, description="wait for a device that fell silent")


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


StageState = Literal["waiting", "running", "soaking", "paused", "done", "aborted", "not reached"]


class StageView(View):
    """One stage; stages count from 1."""

    number: int
    amount: str
    reach: int = Field(description="devices reached in all when the stage is full, of those eligible now")
    planned: int = Field(description="devices that this stage adds")
    offered: int = 0
    committed: int = 0
    failed: int = 0
    state: StageState = "waiting"


class RolloutDeviceView(View):
    """One device's part."""

    id: str
    stage: int
    state: str
    error: str | None
    reason: str | None
    offered_at: datetime | None
    finished_at: datetime | None


class NotEligibleView(View):
    """A device that the rollout passes over."""

    id: str
    reason: str


class PlanView(View):
    """What a rollout would do."""

    model: str
    version: str
    stages: tuple[StageView, ...]
    devices: tuple[tuple[str, ...], ...] = Field(description="what each stage would add if all were online")
    not_eligible: tuple[NotEligibleView, ...]


class RolloutView(View):
    """The whole of one rollout."""

    id: str
    model: str
    version: str
    state: RolloutState
    stage: int
    reason: str | None
    started_at: datetime
    started_by: str
    finished_at: datetime | None
    pushed_at: datetime | None
    push_to_committed_s: float | None = Field(description="from the push to the last device's commit, when finished")
    soak_s: float
    max_failures: str
    min_success: str
    stages: tuple[StageView, ...]
    devices: tuple[RolloutDeviceView, ...]
    waiting: tuple[str, ...] = Field(description="eligible devices without an offer yet")
    not_eligible: tuple[NotEligibleView, ...]


def plan_view(session: Session, rollout: Rollout) -> tuple[Plan, PlanView]:
    """Return what a rollout would do to the fleet as it is now, for the rules and for people."""
    facts = load_devices(session, rollout.tenant)
    planned = plan(rollout.salt, load_selection(session, rollout), load_policy(rollout).stages, facts)
    view = PlanView(
        model=rollout.model,
        version=rollout.version,
        stages=tuple(
            StageView(number=number, amount=stage.amount, reach=stage.reach, planned=len(stage.devices))
            for number, stage in enumerate(planned.stages, 1)
        ),
        devices=tuple(stage.devices for stage in planned.stages),
        not_eligible=tuple(NotEligibleView(id=one.device, reason=one.reason) for one in planned.not_eligible),
    )
    return planned, view


def rollout_view(session: Session, rollout: Rollout) -> RolloutView:
    """Return everything there is to see of a rollout."""
    statement = (
        select(RolloutDevice)
        .where(RolloutDevice.rollout_id == rollout.id)
        .order_by(RolloutDevice.stage, RolloutDevice.offered_at, RolloutDevice.device_id)
    )
    parts = session.scalars(statement).all()
    fleet = load_devices(session, rollout.tenant, rollout.id)
    policy = load_policy(rollout)
    verdicts = {device.id: judge(device, load_selection(session, rollout)) for device in fleet if not device.member}
    waiting = tuple(sorted(device for device, verdict in verdicts.items() if verdict.release))
    pushed_at = _pushed_at(session, rollout)
    return RolloutView(
        id=str(rollout.id),
        model=rollout.model,
        version=rollout.version,
        state=RolloutState(rollout.state),
        stage=rollout.stage + 1,
        reason=rollout.reason,
        started_at=rollout.created_at,
        started_by=rollout.created_by,
        finished_at=rollout.finished_at,
        pushed_at=pushed_at,
        push_to_committed_s=_push_to_committed_s(rollout, pushed_at, parts),
        soak_s=rollout.soak_s,
        max_failures=str(policy.max_failures),
        min_success=str(policy.min_success),
        stages=_stages(rollout, policy, parts, len(parts) + len(waiting)),
        devices=tuple(_device(part) for part in parts),
        waiting=waiting,
        not_eligible=tuple(
            NotEligibleView(id=device, reason=verdict.reason)
            for device, verdict in sorted(verdicts.items())
            if not verdict.release
        ),
    )


def _device(part: RolloutDevice) -> RolloutDeviceView:
    return RolloutDeviceView(
        id=part.device_id,
        stage=part.stage + 1,
        state=part.state,
        error=part.error,
        reason=part.reason,
        offered_at=part.offered_at,
        finished_at=part.finished_at,
    )


def _pushed_at(session: Session, rollout: Rollout) -> datetime | None:
    """Return when the newest of the rollout's builds was pushed."""
    releases = find_releases(session, rollout.tenant, rollout.model, rollout.version, rollout.target)
    return max((release.pushed_at for release in releases), default=None)


def _push_to_committed_s(rollout: Rollout, pushed_at: datetime | None, parts: Sequence[RolloutDevice]) -> float | None:
    ends = [part.finished_at for part in parts if part.state == MemberState.COMMITTED and part.finished_at]
    if rollout.state != RolloutState.FINISHED or pushed_at is None or not ends:
        return None
    return round((max(ends) - pushed_at).total_seconds(), 3)


def _stages(rollout: Rollout, policy: Policy, parts: Sequence[RolloutDevice], eligible: int) -> tuple[StageView, ...]:
    views = []
    before = 0
    for index, (amount, reach) in enumerate(zip(policy.stages, quotas(policy.stages, eligible), strict=True)):
        crew = [MemberState(part.state) for part in parts if part.stage == index]
        views.append(
            StageView(
                number=index + 1,
                amount=str(amount),
                reach=reach,
                planned=max(reach - before, len(crew)),
                offered=len(crew),
                committed=crew.count(MemberState.COMMITTED),
                failed=sum(state.failure for state in crew),
                state=_stage_state(rollout, index, crew),
            )
        )
        before = reach
    return tuple(views)


def _stage_state(rollout: Rollout, index: int, crew: Sequence[MemberState]) -> StageState:
    state = RolloutState(rollout.state)
    if index < rollout.stage or state is RolloutState.FINISHED:
        return "done"
    if index > rollout.stage:
        return "not reached" if state is RolloutState.ABORTED else "waiting"
    if state.active and crew and not any(one.pending for one in crew):
        return "soaking"
    return "aborted" if state is RolloutState.ABORTED else "paused" if state is RolloutState.PAUSED else "running"
