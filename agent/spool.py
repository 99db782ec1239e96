"""Reports that the server has not confirmed yet, on disk, in order, each with its (boot, seq).

The broker's acknowledgement proves nothing, so a report stays here until the server's `ack` names it. A report gets
its number when it is published for the first time: what an overfull spool drops before that leaves no gap, and the
server's "highest contiguous" never waits for a report that will not come.
"""

import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.clock import Clock, rfc3339
from ommatid.contract.messages import MAX_IN_FLIGHT, REPORTS, Report, validate
from ommatid.errors import MessageError, StorageError

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS report (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    seq INTEGER,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (boot, seq)
);
CREATE TABLE IF NOT EXISTS boot (boot TEXT PRIMARY KEY, last_seq INTEGER NOT NULL);
"""

_DROP_ORDER = "CASE kind WHEN 'event' THEN 0 WHEN 'window' THEN 1 ELSE 2 END, id"


class Spool:
    """The unconfirmed reports of this device. All methods may be called from any thread."""

    def __init__(self, path: Path, clock: Clock, *, most_bytes: int = 16 * 1024 * 1024) -> None:
        """Open or create the spool; a file that is no database is set aside, because reports must go on.

        Raises:
            StorageError: The disk cannot be written.
        """
        self.boot = uuid.uuid4().hex
        self.dropped = 0
        self._path = path
        self._clock = clock
        self._most_bytes = most_bytes
        self._started_s = clock.monotonic_s()
        self._lock = threading.Lock()
        self._base = self._open()
        with self._changing():
            self._base.execute("DELETE FROM boot WHERE boot NOT IN (SELECT boot FROM report)")
            self._base.execute("INSERT INTO boot VALUES (?, 0)", (self.boot,))

    def close(self) -> None:
        """Close the database; what is in it stays."""
        with self._lock:
            self._base.close()

    def add(self, kind: type[Report], **fields: Any) -> None:  # noqa: ANN401 - the fields of the report class
        """Keep one report until the server has it; drop the least important one when the spool is full.

        Args:
            kind: Class of the report.
            fields: Its fields, without those that every report has.

        Raises:
            MessageError: The fields do not make such a report: a mistake of ours.
            StorageError: The disk cannot be written.
        """
        common = {
            "boot": self.boot,
            "uptime_s": round(self._clock.monotonic_s() - self._started_s, 3),
            "sent_at": rfc3339(self._clock.wall_s()),
        }
        report = validate({**fields, **common, "seq": 1}, kind)
        body = report.model_dump_json(exclude={"seq"}, exclude_none=True)
        name = report.model_dump(include={"kind"})["kind"]
        with self._changing():
            self._base.execute("INSERT INTO report (boot, kind, body) VALUES (?, ?, ?)", (self.boot, name, body))
            self._make_room()

    def pending(self) -> list[Report]:
        """Return the oldest unconfirmed reports in order, numbering those that are published for the first time."""
        with self._changing():
            numbered = self._base.execute("SELECT count(*) FROM report WHERE seq IS NOT NULL").fetchone()[0]
            fresh = self._base.execute(
                "SELECT id, boot FROM report WHERE seq IS NULL ORDER BY id LIMIT ?", (max(0, MAX_IN_FLIGHT - numbered),)
            ).fetchall()
            for row, boot in fresh:
                self._number(row, boot)
            rows = self._base.execute(
                "SELECT boot, seq, kind, body FROM report WHERE seq IS NOT NULL ORDER BY id"
            ).fetchall()
        return [report for row in rows if (report := _report(*row)) is not None]

    def acknowledge(self, boot: str, seq: int) -> int:
        """Forget the reports of `boot` up to and with `seq`; return how many that were."""
        with self._changing():
            return self._base.execute("DELETE FROM report WHERE boot = ? AND seq <= ?", (boot, seq)).rowcount

    def __len__(self) -> int:
        """Return how many reports wait for confirmation."""
        with self._changing():
            return int(self._base.execute("SELECT count(*) FROM report").fetchone()[0])

    def _number(self, row: int, boot: str) -> None:
        self._base.execute(
            "INSERT INTO boot VALUES (?, 1) ON CONFLICT (boot) DO UPDATE SET last_seq = last_seq + 1", (boot,)
        )
        self._base.execute(
            "UPDATE report SET seq = (SELECT last_seq FROM boot WHERE boot = ?) WHERE id = ?", (boot, row)
        )

    def _make_room(self) -> None:
        """Drop unnumbered reports while there are too many bytes: events first, then windows, the oldest first."""
        size = self._base.execute("SELECT total(length(body)) FROM report").fetchone()[0]
        while size > self._most_bytes:
            victim = self._base.execute(
                f"SELECT id, length(body) FROM report WHERE seq IS NULL ORDER BY {_DROP_ORDER} LIMIT 1"  # noqa: S608 - constant
            ).fetchone()
            if victim is None:
                return
            self._base.execute("DELETE FROM report WHERE id = ?", (victim[0],))
            if self.dropped == 0:
                logger.warning("%s: full; events and then windows are dropped, the oldest first", self._path)
            self.dropped += 1
            size -= victim[1]

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _storage_error(self._path, error) from error
            aside = self._path.with_name(f"{self._path.name}.broken")
            logger.exception("%s: not readable; set aside as %s", self._path, aside.name)
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._connect()
        except (OSError, sqlite3.Error) as error:
            raise _storage_error(self._path, error) from error

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=5.0)
        try:
            base.execute("PRAGMA journal_mode = WAL")
            # FULL, because a number must be on disk before it is on the air: were it forgotten in a power cut, the
            # next report would take it again, and the server would take that one for a copy. 4 ms, a few a minute.
            base.execute("PRAGMA synchronous = FULL")
            base.executescript(_SCHEMA)
        except BaseException:
            base.close()
            raise
        return base

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make one durable change, whole or not at all."""
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                yield
                self._base.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise _storage_error(self._path, error) from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        if self._base.in_transaction:
            self._base.execute("ROLLBACK")


def _report(boot: str, seq: int, kind: str, body: str) -> Report | None:
    """Read a stored report; one that a newer release wrote and this one cannot read stays for that release."""
    try:
        return validate({**json.loads(body), "boot": boot, "seq": seq}, REPORTS[kind])
    except (MessageError, KeyError, ValueError) as error:
        logger.warning("report %s/%d: cannot be read: %s", boot, seq, error)
        return None


def _storage_error(path: Path, error: Exception) -> StorageError:
    return StorageError(f"{path}: {error}", hint="check free space and permissions of this disk")
