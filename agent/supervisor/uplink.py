"""The device's side of the MQTT contract: state, reports until they are confirmed, and what the server desires.

What is unconfirmed is published at each connection, and again when no confirmation comes: the server may have died
after the broker took it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from agent.clock import Clock
from agent.spool import Spool
from ommatid.backoff import Backoff
from ommatid.contract.messages import Ack, Hello, Report, State, Window, decode, encode
from ommatid.contract.topics import Channel, DeviceTopics
from ommatid.contract.windows import encode_window
from ommatid.errors import StorageError
from ommatid.mqtt import CBOR, JSON, Received, Session

RESEND: Final = Backoff(first_s=5.0, most_s=300.0)
"""Waits for a confirmation before everything unconfirmed is published again."""
WINDOW_EXPIRY_S: Final = 3 * 24 * 3600

logger = logging.getLogger(__name__)


class Uplink:
    """Reports and state go up, desired documents and confirmations come down. For any thread."""

    def __init__(
        self,
        topics: DeviceTopics,
        spool: Spool,
        clock: Clock,
        *,
        state: Callable[[], State],
        hello: Callable[[], dict[str, Any]],
        desired: Callable[[bytes], None],
        status_interval_s: float,
    ) -> None:
        """Take where to publish, and who to ask for what is to be said; `desired` is called with each document."""
        self._topics = topics
        self._spool = spool
        self._clock = clock
        self._state = state
        self._hello = hello
        self._desired = desired
        self._status_interval_s = status_interval_s
        self._lock = threading.RLock()
        self._published: dict[tuple[str, int], float] = {}  # (boot, seq) -> when, the oldest first
        self._resends = 0
        self._state_at_s = float("-inf")
        self._session: Session | None = None

    @property
    def connected(self) -> bool:
        """Tell whether there is a connection to the broker."""
        return self._session is not None and self._session.connected

    @property
    def broken(self) -> dict[str, int]:
        """Return how many received messages could not be understood, by channel."""
        return dict(self._session.counts.broken) if self._session is not None else {}

    def attach(self, session: Session) -> None:
        """Take the session to speak through, and start it.

        Raises:
            LinkError: This device's certificate cannot be used.
        """
        self._session = session
        session.subscribe(self._topics.of(Channel.DESIRED), bytes, self._take_desired)
        session.subscribe(self._topics.of(Channel.ACK), lambda payload: decode(payload, Ack), self._take_ack)
        session.start()

    def connected_now(self) -> None:
        """Say hello, who we are, and all that is unconfirmed; the session calls this at each connection."""
        with self._lock:
            self._published.clear()
            self._resends = 0
            try:
                self._spool.add(Hello, **self._hello())
            except StorageError as error:
                logger.warning("%s: no hello: %s", self._topics.device, error)
        self.flush()
        self.publish_state()

    def flush(self) -> None:
        """Publish what was not published on this connection yet."""
        session = self._session
        if session is None or not session.connected:
            return
        with self._lock:
            try:
                pending = self._spool.pending()
            except StorageError as error:
                logger.warning("%s: reports wait: %s", self._topics.device, error)
                return
            now_s = self._clock.monotonic_s()
            for report in pending:
                if (report.boot, report.seq) not in self._published and self._send(session, report):
                    self._published[report.boot, report.seq] = now_s

    def publish_state(self) -> None:
        """Publish what the device does now, retained."""
        session = self._session
        if session is not None and session.publish(self._topics.of(Channel.STATE), encode(self._state()), retain=True):
            self._state_at_s = self._clock.monotonic_s()

    def tick(self) -> None:
        """Publish the state when it is time, and again what nobody confirmed."""
        now_s = self._clock.monotonic_s()
        if now_s - self._state_at_s >= self._status_interval_s:
            self.publish_state()
        with self._lock:
            # The oldest counts: later ones may get through, and be answered, while it was lost.
            oldest_s = next(iter(self._published.values()), now_s)
            if now_s - oldest_s > RESEND.ceiling_s(self._resends):
                logger.info("%s: %d reports unconfirmed; sent again", self._topics.device, len(self._published))
                self._resends += 1
                self._published.clear()
        self.flush()

    def stop(self, last: State) -> None:
        """Say a last state, and disconnect in order."""
        if self._session is not None:
            self._session.publish(self._topics.of(Channel.STATE), encode(last), retain=True)
            self._session.stop()

    def _send(self, session: Session, report: Report) -> bool:
        if isinstance(report, Window):
            topic = self._topics.of(Channel.WINDOW)
            return session.publish(topic, encode_window(report), content_type=CBOR, expiry_s=WINDOW_EXPIRY_S)
        channel = Channel.EVENT if report.model_dump(include={"kind"})["kind"] == "event" else Channel.REPORTED
        return session.publish(self._topics.of(channel), encode(report), content_type=JSON)

    def _take_ack(self, received: Received[Ack]) -> None:
        ack = received.value
        with self._lock:
            try:
                forgotten = self._spool.acknowledge(ack.boot, ack.seq)
            except StorageError as error:
                logger.warning("%s: a confirmation is not kept: %s", self._topics.device, error)
                return
            waiting = self._published.items()
            self._published = {key: at_s for key, at_s in waiting if key[0] != ack.boot or key[1] > ack.seq}
            if forgotten:
                self._resends = 0
        self.flush()

    def _take_desired(self, received: Received[bytes]) -> None:
        if received.payload:
            self._desired(received.payload)
