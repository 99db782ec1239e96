"""Load the facts of a rollout from the database, and write down what the rules decided.

Nothing is remembered in between: a server that stops anywhere goes on from the tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from fleet_server.database.models import Audit, Device, Release, Rollout, RolloutDevice
from fleet_server.director import Director
from fleet_server.rollouts.facts import (
    DEFAULT_MAX_FAILURES,
    DEFAULT_MIN_SUCCESS,
    DEFAULT_PATIENCE_S,
    DeviceFacts,
    Member,
    MemberState,
    Policy,
    ReleaseFacts,
    RolloutFacts,
    RolloutState,
    Selection,
)
from fleet_server.rollouts.rules import Abort, Action, CompleteStage, Finish, Offer, Pause, SendBack, Settle
from fleet_server.rollouts.stages import parse_amount, parse_stages
from ommatid.contract.messages import UpdateState

BY_RULE = "rollout rules"


def find_releases(session: Session, tenant: str, model: str, version: str, target: str | None) -> Sequence[Release]:
    """Return the builds of one model version, the newest first."""
    statement = select(Release).where(Release.tenant == tenant, Release.model == model, Release.version == version)
    if target is not None:
        statement = statement.where(Release.target == target)
    return session.scalars(statement.order_by(Release.release_counter.desc())).all()


def release_facts(release: Release) -> ReleaseFacts:
    """Return what the rules need of a release."""
    return ReleaseFacts(release.id, release.target, release.digest, tuple(release.hardware), release.minimum_agent)


def load_selection(session: Session, rollout: Rollout) -> Selection:
    """Return what a rollout brings, and to whom."""
    releases = find_releases(session, rollout.tenant, rollout.model, rollout.version, rollout.target)
    return Selection(tuple(release_facts(release) for release in releases), frozenset(rollout.selector))


def load_policy(rollout: Rollout) -> Policy:
    """Return how careful a rollout is."""
    limits = rollout.thresholds
    return Policy(
        stages=parse_stages(",".join(rollout.stages)),
        soak_s=rollout.soak_s,
        max_failures=parse_amount(str(limits.get("max_failures", DEFAULT_MAX_FAILURES)), "--max-failures"),
        min_success=parse_amount(str(limits.get("min_success", DEFAULT_MIN_SUCCESS)), "--min-success"),
        patience_s=float(limits.get("patience_s", DEFAULT_PATIENCE_S)),
    )


def load_rollout(session: Session, rollout: Rollout) -> RolloutFacts:
    """Return the facts of one rollout."""
    return RolloutFacts(
        salt=rollout.salt,
        selection=load_selection(session, rollout),
        policy=load_policy(rollout),
        state=RolloutState(rollout.state),
        stage=rollout.stage,
        watched_from=rollout.stage_started_at.timestamp() if rollout.stage_started_at else 0.0,
        standing=newest_lasting(session, rollout.tenant) == rollout.id,
    )


def load_devices(session: Session, tenant: str, rollout: int | None = None) -> list[DeviceFacts]:
    """Return the facts of every device of a tenant, with its part in one rollout."""
    part = and_(RolloutDevice.device_id == Device.id, RolloutDevice.rollout_id == rollout)
    rows = session.execute(
        select(Device, RolloutDevice, Release.digest)
        .outerjoin(RolloutDevice, part)
        .outerjoin(Release, Release.id == RolloutDevice.release_id)
        .where(Device.tenant == tenant, Device.revoked_at.is_(None))
    )
    return [_device_facts(device, member, digest or "") for device, member, digest in rows]


def _device_facts(device: Device, member: RolloutDevice | None, digest: str) -> DeviceFacts:
    holds_offer = member is not None and member.offered_rev is not None
    return DeviceFacts(
        id=device.id,
        online=device.online,
        arch=device.arch,
        agent=device.agent,
        tags=device.all_tags,
        assigned=holds_offer and member is not None and device.desired_release_id == member.release_id,
        running=device.running_digest if _is_settled(device) else None,
        member=None if member is None else _member_facts(member, digest),
    )


def _member_facts(member: RolloutDevice, digest: str) -> Member:
    return Member(
        stage=member.stage,
        state=MemberState(member.state),
        digest=digest,
        offered_at=member.offered_at.timestamp() if member.offered_at else 0.0,
        ended_at=member.finished_at.timestamp() if member.finished_at else None,
        has_previous=member.previous_release_id is not None,
    )


def _is_settled(device: Device) -> bool:
    """Tell whether no update goes on, by the device's last state message."""
    try:
        return UpdateState((device.state or {}).get("update", UpdateState.IDLE)).final
    except ValueError:
        return False


def newest_lasting(session: Session, tenant: str) -> int | None:
    """Return the newest rollout when it finished, aborted ones aside: newcomers join it."""
    newest = session.execute(
        select(Rollout.id, Rollout.state)
        .where(Rollout.tenant == tenant, Rollout.state != RolloutState.ABORTED)
        .order_by(Rollout.id.desc())
        .limit(1)
    ).first()
    return newest.id if newest and newest.state == RolloutState.FINISHED else None


def unsettled(session: Session) -> Sequence[Rollout]:
    """Return each rollout that may still have something to do."""
    active = Rollout.state.in_([state for state in RolloutState if state.active])
    lasting = {newest_lasting(session, tenant) for tenant in session.scalars(select(Rollout.tenant).distinct())}
    statement = select(Rollout).where(or_(active, Rollout.id.in_(lasting - {None}), _must_send_back()))
    return session.scalars(statement.order_by(Rollout.id)).all()


def _must_send_back() -> ColumnElement[bool]:
    open_part = or_(RolloutDevice.offered_rev.is_not(None), RolloutDevice.state == MemberState.RETURNING)
    parts = select(RolloutDevice.rollout_id).where(RolloutDevice.rollout_id == Rollout.id, open_part)
    return and_(Rollout.state == RolloutState.ABORTED, parts.exists())


@dataclass(frozen=True, slots=True)
class Writer:
    """Carries out actions inside one transaction of the caller's."""

    session: Session
    director: Director
    at: datetime

    def apply(self, rollout: Rollout, action: Action) -> None:
        """Write down one action; an assignment is published when the transaction commits."""
        match action:
            case Offer(device, stage, release):
                self._offer(rollout, device, stage, release.id)
            case Settle(device, state):
                member = self._member(rollout, device)
                member.state, member.finished_at = state, self.at
            case SendBack(device):
                self._send_back(self._member(rollout, device))
            case CompleteStage(stage):
                rollout.stage, rollout.stage_started_at = stage + 1, self.at
            case Pause(reason):
                rollout.state, rollout.reason = RolloutState.PAUSED, reason
            case Abort(reason):
                rollout.state, rollout.reason, rollout.finished_at = RolloutState.ABORTED, reason, self.at
            case Finish():
                rollout.state, rollout.reason, rollout.finished_at = RolloutState.FINISHED, None, self.at
        if isinstance(action, Pause | Abort | Finish):
            self.note(rollout, BY_RULE, rollout.state)

    def note(self, rollout: Rollout, who: str, what: str) -> None:
        """Add a line to the audit log."""
        detail = {"model": rollout.model, "version": rollout.version, "reason": rollout.reason}
        subject = f"rollout {rollout.id}"
        self.session.add(
            Audit(tenant=rollout.tenant, at=self.at, who=who, what=f"rollout {what}", subject=subject, detail=detail)
        )

    def _offer(self, rollout: Rollout, device_id: str, stage: int, release_id: int) -> None:
        device = self.session.get_one(Device, device_id)
        previous = device.desired_release_id
        rev = self.director.assign(self.session, device, self.session.get_one(Release, release_id))
        self.session.add(
            RolloutDevice(
                rollout_id=rollout.id,
                device_id=device_id,
                release_id=release_id,
                previous_release_id=previous,
                offered_rev=rev,
                stage=stage,
                state=MemberState.OFFERED,
                offered_at=self.at,
            )
        )

    def _send_back(self, member: RolloutDevice) -> None:
        device = self.session.get_one(Device, member.device_id)
        previous = member.previous_release_id
        self.director.assign(self.session, device, self.session.get_one(Release, previous) if previous else None)
        member.offered_rev = None
        if not MemberState(member.state).failure:
            member.state, member.finished_at = MemberState.RETURNING, None

    def _member(self, rollout: Rollout, device: str) -> RolloutDevice:
        return self.session.get_one(RolloutDevice, (rollout.id, device))
