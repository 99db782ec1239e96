"""What has to be done from time to time.

Sign again what expires, notice who went silent, publish again what a broker that came back may have lost.
"""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from fleet_server.database.models import Device, StoredReport
from fleet_server.services import Services
from ommatid.errors import OmmatidError

logger = logging.getLogger(__name__)

EVERY_S: Final = 60.0
WARN_EVERY: Final = timedelta(days=1)
WARN_BEFORE: Final = timedelta(days=60)
FORGET_AT_ONCE: Final = 5000
SILENT: Final = timedelta(minutes=5)
"""A device says what it does at least once a minute; its last will is lost when the broker dies with it."""


class Housekeeping:
    """One thread that looks after the server's own documents and rows."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self._warned = datetime.min.replace(tzinfo=UTC)
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin, with a first round at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round in hand."""
        self._stopping.set()
        self._parts.reconnected.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def round(self) -> None:
        """Do all that is due now."""
        self._parts.releases.renew_due()
        while self._parts.director.renew_due() and not self._stopping.is_set():
            pass
        if mark_silent(self._parts):
            self._parts.changes.notify()
        forget_old_reports(self._parts)
        if self._parts.now() - self._warned > WARN_EVERY:
            self._warned = self._parts.now()
            for warning in expiry_warnings(self._parts):
                logger.warning("%s", warning)

    def _run(self) -> None:
        due = 0.0
        while not self._stopping.is_set():
            try:
                if self._parts.reconnected.is_set():
                    self._parts.reconnected.clear()
                    self._parts.director.publish_all()
                if time.monotonic() >= due:
                    due = time.monotonic() + EVERY_S
                    self.round()
            except (SQLAlchemyError, OmmatidError):
                logger.exception("housekeeping: this round failed; the next one tries again")
            if not self._stopping.is_set():
                self._parts.reconnected.wait(EVERY_S)


def expiry_warnings(parts: Services) -> list[str]:
    """Return a sentence for each document that expires soon and that this server cannot sign itself."""
    warnings = []
    for name, expires in parts.releases.expiries().items():
        left = expires - parts.now()
        if left < WARN_BEFORE:
            remedy = "`fleet extend --keys KEYDIR`" if name == "targets" else "sign a new root with the root key"
            warnings.append(f"release {name} expires in {left.days} days, and devices then take nothing new: {remedy}")
    return warnings


def forget_old_reports(parts: Services) -> int:
    """Delete the oldest reports that are older than the settings say; return how many.

    What is deleted is not stored again: the watermark of its boot stays.
    """
    limit = parts.now() - timedelta(days=parts.settings.report_days)
    with parts.database.write() as session:
        oldest = select(StoredReport.id).order_by(StoredReport.id).limit(FORGET_AT_ONCE).subquery()
        statement = delete(StoredReport).where(StoredReport.id.in_(select(oldest)), StoredReport.received_at < limit)
        return len(session.scalars(statement.returning(StoredReport.id)).all())


def mark_silent(parts: Services) -> int:
    """Mark devices offline that were not heard for long; return how many."""
    limit = parts.now() - SILENT
    with parts.database.write() as session:
        statement = (
            update(Device).where(Device.online, Device.last_seen < limit).values(online=False).returning(Device.id)
        )
        silent = list(session.scalars(statement))
    for device in silent:
        logger.warning("%s: silent for %d s; counted as offline", device, SILENT.total_seconds())
    return len(silent)
