"""Say to each device, over the director's signature, what it shall run.

The database is the truth: a document is stored in the transaction that decided it, published after the commit, and
published again whenever the broker or the device comes back. `rev` grows over the whole fleet, never per device, so a
restored backup of one row cannot repeat a number.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from securesystemslib.signer import Signer
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from fleet_server.database.counters import next_number
from fleet_server.database.engine import Database
from fleet_server.database.models import Device, Release
from fleet_server.signing.director import DOCUMENT_DAYS, DirectedTarget, sign_document
from ommatid.contract.topics import Channel, DeviceTopics

logger = logging.getLogger(__name__)

REV_COUNTER: Final = "director_rev"
RENEW_BEFORE: Final = timedelta(days=10)
RENEW_AT_ONCE: Final = 500
"""Documents signed again in one transaction; a fleet enrolled on one day does not hold the database for long."""


class Downlink(Protocol):
    """Carries a document to the broker."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send one message; False when there is no connection now."""
        ...


class Director:
    """Signs, stores and publishes desired state."""

    def __init__(self, database: Database, signer: Signer, downlink: Downlink, now: Callable[[], datetime]) -> None:
        self._database = database
        self._signer = signer
        self._downlink = downlink
        self._now = now

    def assign(self, session: Session, device: Device, release: Release | None) -> int:
        """Decide what `device` shall run; published when the caller's transaction commits.

        Returns:
            The revision of the new document.
        """
        now = self._now()
        rev = next_number(session, REV_COUNTER)
        target = DirectedTarget(release.path, release.length, release.digest, release.model) if release else None
        document = sign_document(self._signer, device=device.id, tenant=device.tenant, rev=rev, target=target, now=now)
        device.desired_rev = rev
        device.desired_release_id = release.id if release else None
        device.desired_document = document.decode()
        device.desired_expires_at = now + timedelta(days=DOCUMENT_DAYS)
        self._publish_after(session, device.tenant, device.id, document)
        return rev

    def publish(self, devices: Iterable[Device]) -> None:
        """Publish stored documents again, such as to a device that just said hello."""
        for device in devices:
            if device.desired_document is not None:
                self._send(device.tenant, device.id, device.desired_document.encode())

    def publish_all(self) -> None:
        """Publish every document: a broker that came back may have lost what it retained."""
        with self._database.read() as session:
            statement = select(Device).where(Device.desired_document.is_not(None), Device.revoked_at.is_(None))
            self.publish(session.scalars(statement.execution_options(yield_per=500)))

    def renew_due(self) -> int:
        """Sign documents again that expire soon; return how many were."""
        deadline = self._now() + RENEW_BEFORE
        with self._database.write() as session:
            statement = (
                select(Device)
                .where(Device.desired_expires_at < deadline, Device.revoked_at.is_(None))
                .order_by(Device.desired_expires_at)
                .limit(RENEW_AT_ONCE)
            )
            due = session.scalars(statement).all()
            for device in due:
                release = session.get(Release, device.desired_release_id) if device.desired_release_id else None
                self.assign(session, device, release)
        if due:
            logger.info("director: signed %d documents again", len(due))
        return len(due)

    def _publish_after(self, session: Session, tenant: str, device: str, document: bytes) -> None:
        waiting: dict[tuple[str, str], bytes] | None = session.info.get("desired")
        if waiting is None:
            waiting = session.info["desired"] = {}
            event.listen(session, "after_commit", self._flush)
            event.listen(session, "after_rollback", _forget)
        waiting[tenant, device] = document

    def _flush(self, session: Session) -> None:
        for (tenant, device), document in session.info.get("desired", {}).items():
            self._send(tenant, device, document)
        _forget(session)

    def _send(self, tenant: str, device: str, document: bytes) -> None:
        self._downlink.publish(DeviceTopics(tenant, device).of(Channel.DESIRED), document, retain=True)


def _forget(session: Session) -> None:
    session.info.get("desired", {}).clear()
