"""The thread that takes messages from the broker session and puts them into the database.

A message is acknowledged to the broker, and a report to its device, only after the commit. While the database cannot
be written (disk full, locked) nothing is acknowledged and nothing is lost: the broker and the devices keep it.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.database.models import Audit
from fleet_server.director import Director
from fleet_server.ingest.batch import Arrival, Outcome, store
from fleet_server.metrics import Metrics
from ommatid.contract.messages import Ack, Report, State, decode, decode_report, encode
from ommatid.contract.topics import Channel, DeviceTopics, every_device, parse
from ommatid.contract.windows import decode_window
from ommatid.errors import MessageError
from ommatid.mqtt import Received, Session

logger = logging.getLogger(__name__)

BATCH: Final = 500
PAUSE_S: Final = 1.0
MOST_COMPLAINTS: Final = 1000
"""Different refusals audited in one life of the server; all are counted."""


class Ingest:
    """Everything that devices send, on its way into the database."""

    def __init__(
        self,
        database: Database,
        session: Session,
        director: Director,
        changes: Changes,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._session = session
        self._director = director
        self._changes = changes
        self._metrics = metrics
        self._now = now
        self._queue: queue.Queue[Received[Report] | Received[State] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._complaints: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        session.subscribe(every_device(Channel.REPORTED), decode_report, self._take)
        session.subscribe(every_device(Channel.EVENT), decode_report, self._take)
        session.subscribe(every_device(Channel.WINDOW), decode_window, self._take)
        session.subscribe(every_device(Channel.STATE), _decode_state, self._take)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand; what is not acknowledged comes again."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(10)

    def _take(self, received: Received[Any]) -> None:
        self._queue.put(received)

    def _run(self) -> None:
        while not self._stopping.is_set():
            batch = self._next_batch()
            if batch:
                self._store(batch)

    def _next_batch(self) -> list[Received[Report] | Received[State]]:
        """Wait for a message; return it with those that wait behind it."""
        first = self._queue.get()
        batch = [first] if first is not None else []
        while len(batch) < BATCH:
            try:
                received = self._queue.get_nowait()
            except queue.Empty:
                break
            if received is not None:
                batch.append(received)
        return batch

    def _store(self, batch: Sequence[Received[Report] | Received[State]]) -> None:
        """Store a batch; try again while the database cannot be written."""
        arrivals = [arrival for received in batch if (arrival := self._arrival(received)) is not None]
        told = False
        while not self._stopping.is_set():
            try:
                self._commit(arrivals)
            except OperationalError as error:
                if not told:
                    logger.error("ingest: the database cannot be written: %s; trying again", error.orig)  # noqa: TRY400
                told = True
                self._stopping.wait(PAUSE_S)
            except Exception:
                # One message of the batch is at fault: each by itself, so that it takes no other with it.
                logger.exception("ingest: a batch of %d messages failed", len(arrivals))
                self._one_by_one(arrivals)
                break
            else:
                break
        if not self._stopping.is_set() or not told:
            for received in batch:
                received.ack()

    def _one_by_one(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            try:
                self._commit([arrival])
            except (SQLAlchemyError, ValueError, OverflowError, TypeError) as error:
                self._refuse(arrival.topics, f"cannot be stored: {type(error).__name__}")

    def _commit(self, arrivals: Sequence[Arrival]) -> None:
        with self._metrics.batch_seconds.time(), self._database.write() as session:
            outcome = store(session, arrivals, self._now())
        self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        for ack in outcome.acks:
            self._session.publish(ack.topics.of(Channel.ACK), encode(Ack(boot=ack.boot, seq=ack.seq)))
        self._director.publish(outcome.greeted)
        for kind, count in outcome.stored.items():
            self._metrics.reports.labels(kind).inc(count)
        self._metrics.repeated.inc(outcome.repeated)
        for topics, reason in outcome.refused:
            self._refuse(topics, reason)
        if outcome.changed:
            self._changes.notify()

    def _arrival(self, received: Received[Report] | Received[State]) -> Arrival | None:
        try:
            topics, channel = parse(received.topic)
        except MessageError as error:
            self._metrics.refused.inc()
            logger.warning("ingest: %s", error)
            return None
        if isinstance(received.value, Report) and not _belongs(received.value, channel):
            self._refuse(topics, f"a report on channel {channel}")
            return None
        return Arrival(topics, received.value)

    def _refuse(self, topics: DeviceTopics, reason: str) -> None:
        """Count a refused message; note the first of its kind in log and audit."""
        self._metrics.refused.inc()
        key = (topics.device, reason)
        if key in self._complaints or len(self._complaints) >= MOST_COMPLAINTS:
            return
        self._complaints.add(key)
        logger.warning("%s: message refused: %s (further ones are only counted)", topics.device, reason)
        try:
            with self._database.write() as session:
                who = f"device:{topics.device}"
                detail = {"reason": reason, "tenant": topics.tenant}
                tenant = topics.tenant
                session.add(
                    Audit(tenant=tenant, at=self._now(), who=who, what="refused", subject=topics.device, detail=detail)
                )
        except SQLAlchemyError:
            logger.exception("%s: the refusal could not be audited", topics.device)


def _decode_state(payload: bytes) -> State:
    return decode(payload, State)


def _belongs(report: Report, channel: Channel) -> bool:
    kind = str(getattr(report, "kind", ""))
    expected = {"event": Channel.EVENT, "window": Channel.WINDOW}.get(kind, Channel.REPORTED)
    return channel is expected
