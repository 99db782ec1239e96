"""Bring the devices' reports into the rollouts that made the offers.

Reports are stored once and numbered, so reading them again from the start gives the same end.
"""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.database.models import Release, RolloutDevice, StoredReport
from fleet_server.rollouts.facts import MemberState, follow
from ommatid.contract.messages import Refusal, UpdateReport, UpdateState, validate
from ommatid.errors import MessageError

BATCH = 1000
REPLAYED = "ReplayedError"
"""Class of the refusal of a document older than one accepted before, from ommatid.contract.trust.errors."""


def start_of_news(session: Session, rollouts: Sequence[int]) -> int:
    """Return the number of the last report that is older than every offer of these rollouts."""
    offers = select(func.min(RolloutDevice.offered_at)).where(RolloutDevice.rollout_id.in_(rollouts))
    oldest_offer = session.scalar(offers)
    statement = select(func.max(StoredReport.id))
    if oldest_offer is not None:
        statement = statement.where(StoredReport.received_at < oldest_offer)
    return session.scalar(statement) or 0


def new_reports(session: Session, after: int) -> Sequence[StoredReport]:
    """Return the next reports about updates after a report's number, the oldest first."""
    kinds = StoredReport.kind.in_(["update", "refusal"])
    statement = select(StoredReport).where(StoredReport.id > after, kinds).order_by(StoredReport.id).limit(BATCH)
    return session.scalars(statement).all()


def absorb(session: Session, reports: Sequence[StoredReport]) -> int:
    """Let each report change the offer it is about; return how many offers changed."""
    return sum(_absorb(session, report) for report in reports)


def _absorb(session: Session, report: StoredReport) -> bool:
    try:
        if report.kind == "refusal":
            return _refused(session, report, validate(report.body, Refusal))
        return _updated(session, report, validate(report.body, UpdateReport))
    except MessageError:
        return False  # ingest checked it; a report of a later release that we no longer understand is no news


def _updated(session: Session, report: StoredReport, update: UpdateReport) -> bool:
    statement = (
        select(RolloutDevice)
        .join(Release, Release.id == RolloutDevice.release_id)
        .where(
            RolloutDevice.device_id == report.device_id,
            RolloutDevice.offered_rev <= update.desired_rev,
            Release.digest == update.model.digest,
        )
        .order_by(RolloutDevice.offered_rev.desc())
        .limit(1)
    )
    member = session.scalars(statement).first()
    return member is not None and _follow(member, report, update.state, update.error, update.reason)


def _refused(session: Session, report: StoredReport, refusal: Refusal) -> bool:
    """A document that was refused whole names no model: it is about the offer that is open now.

    A replay is not: it is older than the offer, as a broker brings it back that lost its last minute in a crash.
    """
    if refusal.error == REPLAYED:
        return False
    statement = (
        select(RolloutDevice)
        .where(RolloutDevice.device_id == report.device_id, RolloutDevice.offered_rev.is_not(None))
        .order_by(RolloutDevice.offered_rev.desc())
        .limit(1)
    )
    member = session.scalars(statement).first()
    if member is None or not MemberState(member.state).pending:
        return False
    if member.offered_at is not None and report.received_at < member.offered_at:
        return False
    return _follow(member, report, UpdateState.REFUSED, refusal.error, refusal.reason)


def _follow(
    member: RolloutDevice, report: StoredReport, state: UpdateState, error: str | None, reason: str | None
) -> bool:
    before = MemberState(member.state)
    after = follow(before, state)
    if after is before:
        return False
    member.state = after
    member.error, member.reason = error, reason
    member.finished_at = None if after.pending else report.received_at
    return True
