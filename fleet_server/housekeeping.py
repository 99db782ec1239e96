"""What has to be done from time to time.

Sign again what expires, notice who went silent, publish again what a broker that came back may have lost.
"""

import logging
import threading
import time
from datetime import timedelta
from typing import Final

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from fleet_server.database.models import Device
from fleet_server.services import Services
from ommatid.errors import OmmatidError

logger = logging.getLogger(__name__)

EVERY_S: Final = 60.0
SILENT: Final = timedelta(minutes=5)
"""A device says what it does at least once a minute; its last will is lost when the broker dies with it."""


class Housekeeping:
    """One thread that looks after the server's own documents and rows."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._stopping = threading.Event()
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
