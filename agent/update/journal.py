"""Keep the record durable, and tell the reporter of each change of it, once."""

import logging
from pathlib import Path

from agent.update.ports import Change, Reporter
from agent.update.record import Record, RecordFile
from ommatid.disk import Disk
from ommatid.errors import OmmatidError

logger = logging.getLogger(__name__)


class Journal:
    """The record in memory, on disk and as reported. A kill between report and disk repeats the report."""

    def __init__(self, path: Path, disk: Disk, reporter: Reporter) -> None:
        self.record = Record()
        self._file = RecordFile(path, disk)
        self._reporter = reporter
        self._saved = True

    @property
    def clean(self) -> bool:
        """Tell whether the record is on disk, and reported."""
        return self._saved and self.record.reported

    def load(self) -> str | None:
        """Read the record from disk, and return what was wrong with it.

        Raises:
            StorageError: The disk cannot be read.
        """
        self.record, damage = self._file.load()
        return damage

    def keep(self, record: Record) -> None:
        """Take a record that is not durable yet."""
        self.record = record
        self._saved = False

    def save(self, record: Record) -> None:
        """Make a record durable; it is kept in memory even if that fails.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        self.keep(record)
        self._file.save(record)
        self._saved = True

    def publish(self) -> None:
        """Make the record durable if it is not, then report it if it was not.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        if not self._saved:
            self.save(self.record)
        if not self.record.reported:
            self._report()
            self.save(self.record.model_copy(update={"reported": True}))

    def publish_unsaved(self) -> None:
        """Report the record although the disk does not take it, if the reporter can."""
        if self.record.reported:
            return
        try:
            self._report()
        except OmmatidError as error:
            logger.warning("update: cannot report: %s", error)
        else:
            self.keep(self.record.model_copy(update={"reported": True}))

    def _report(self) -> None:
        record = self.record
        if record.release is None:
            return
        self._reporter.update(
            Change(
                desired_rev=record.desired_rev,
                model=record.release.ref,
                state=record.state,
                attempt=max(1, record.attempts.get(record.state, 1)),
                error=record.error,
                reason=record.reason,
                figures=record.figures,
            )
        )
