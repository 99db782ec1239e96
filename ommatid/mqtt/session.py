"""One MQTT v5 session that outlives brokers: mTLS, endless reconnection with jitter, typed messages.

Every connection gets a fresh paho client: nothing waits in a hidden queue to be sent twice, and a renewed certificate
is picked up. A publication made while there is no connection is dropped and says so: whoever needs delivery keeps the
message (the spool, the database) and publishes it again in `on_connected`.
"""

import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ommatid.backoff import Backoff
from ommatid.errors import LinkError, MessageError
from ommatid.mqtt.broker import Broker
from ommatid.mqtt.in_flight import Done, InFlight
from ommatid.text import in_words

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
CBOR: Final = "application/cbor"

BRIEF_S: Final = 10.0
"""A connection that ends sooner may be fought over: somebody else has the same identity."""
BRIEF_IN_A_ROW: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us, retained, once we are gone for `delay_s` seconds."""

    topic: str
    payload: bytes
    delay_s: int = 2


class Received(Generic[T]):
    """One decoded message. With manual acknowledgement the broker keeps it until `ack`."""

    __slots__ = ("_ack", "payload", "retain", "topic", "value")

    def __init__(self, topic: str, payload: bytes, value: T, *, retain: bool, ack: Callable[[], None]) -> None:
        self.topic = topic
        self.payload = payload
        self.value = value
        self.retain = retain
        self._ack = ack

    def ack(self) -> None:
        """Tell the broker that the message is dealt with; from any thread, does nothing without manual ack."""
        self._ack()


@dataclass(slots=True)
class Counts:
    """What happened on this session since it began."""

    connections: int = 0
    broken: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Subscription:
    topic_filter: str
    decode: Callable[[bytes], Any]
    handle: Callable[[Received[Any]], None]


class Session:
    """A connection that comes back by itself. All methods may be called from any thread.

    Handlers and hooks run on the network thread: they must be quick, or hand over to a thread of their own.
    """

    def __init__(
        self,
        broker: Broker,
        identity: str,
        *,
        will: Will | None = None,
        on_connected: Callable[[], None] | None = None,
        on_disconnected: Callable[[str], None] | None = None,
        manual_ack: bool = False,
        keep_session_s: int = 0,
        keepalive_s: int = 30,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare a session; nothing connects before `start`.

        Args:
            broker: Where to connect, and with which certificate.
            identity: The client id; the broker demands that it is the certificate's common name.
            will: What the broker publishes when we vanish.
            on_connected: Called after each connection, once every subscription is in place.
            on_disconnected: Called with the reason when a connection ends or one cannot be made.
            manual_ack: Handlers call `Received.ack` themselves, after they stored the message.
            keep_session_s: How long the broker queues for us while we are away; 0 starts clean each time.
            keepalive_s: A dead connection is noticed after about one and a half of these.
            backoff: The waits between attempts.
        """
        self.broker = broker
        self.identity = identity
        self.counts = Counts()
        self._will = will
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._manual_ack = manual_ack
        self._keep_session_s = keep_session_s
        self._keepalive_s = keepalive_s
        self._backoff = backoff or Backoff()
        self._subscriptions: list[_Subscription] = []
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._end_reason = ""
        self._client: Client | None = None
        self._in_flight = InFlight()
        self._pending_subscriptions: set[int] = set()
        self._thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        """Tell whether the broker has accepted us and every subscription."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a connection; return whether there is one."""
        return self._connected.wait(timeout_s)

    def subscribe(self, topic_filter: str, decode: Callable[[bytes], T], handle: Callable[[Received[T]], None]) -> None:
        """Receive every message of `topic_filter`, now and after each reconnection.

        A payload that `decode` refuses with MessageError is counted, acknowledged and logged once a kind.
        """
        with self._lock:
            self._subscriptions.append(_Subscription(topic_filter, decode, handle))
            client = self._client
        if client is not None and client.is_connected():
            client.subscribe(topic_filter, qos=1)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        content_type: str = JSON,
        retain: bool = False,
        expiry_s: int | None = None,
        done: Done | None = None,
    ) -> bool:
        """Send one message at QoS 1 without waiting.

        Args:
            topic: Full topic.
            payload: Encoded message; an empty retained one clears the topic.
            content_type: MQTT v5 content type.
            retain: Keep it on the broker for later subscribers.
            expiry_s: The broker forgets it after so many seconds.
            done: Called once: True when the broker took it, False when the connection ended before that or
                the broker refused it. Not called when this returns False.

        Returns:
            False when there is no connection: nothing was sent, and nothing will be.
        """
        properties = _properties(PacketTypes.PUBLISH)
        properties.ContentType = content_type
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        with self._lock:
            client, in_flight = self._client, self._in_flight
        # Never call paho with our lock held: it calls back with its own locks held.
        if client is None or not client.is_connected():
            return False
        info = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            return False
        outcome = in_flight.expect(info.mid, done)
        if outcome is not None and done is not None:
            self._guard(done, outcome)
        return True

    def start(self) -> None:
        """Begin to connect, for ever, on a thread of its own.

        Raises:
            LinkError: The TLS files cannot be used.
        """
        self.broker.tls()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{self.identity}", daemon=True)
        self._thread.start()

    def reconnect(self) -> None:
        """End this connection and make a new one, with the TLS files as they are now."""
        with self._lock:
            client = self._client
        if client is not None:
            client.disconnect()
            self._end("a new certificate")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect in order; the broker then publishes no will."""
        self._stopping.set()
        with self._lock:
            client = self._client
        if client is not None:
            client.disconnect()
        self._end("stopped")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        attempt, brief = 0, 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            reason = self._one_connection()
            if self._stopping.is_set():
                return
            if reason.was_connected:
                brief = brief + 1 if time.monotonic() - began_s < BRIEF_S else 0
                attempt = max(0, brief - 1)
            else:
                attempt += 1
            if reason.was_connected or attempt == 1:
                twin = "; does another machine use this identity?" if brief >= BRIEF_IN_A_ROW else ""
                logger.warning("%s: broker %s: %s%s; trying again", self.identity, self.broker, reason.text, twin)
            if self._on_disconnected is not None:
                self._guard(self._on_disconnected, reason.text)
            self._stopping.wait(self._backoff.wait_s(attempt, random.random()))  # noqa: S311 - jitter is no secret

    def _one_connection(self) -> "_Ending":
        """Connect, stay until the connection ends, and say why it ended."""
        self._ended.clear()
        self._settled.clear()
        self._end_reason = ""
        try:
            client = self._new_client()
            client.connect(
                self.broker.host,
                self.broker.port,
                self._keepalive_s,
                clean_start=self._keep_session_s == 0,
                properties=self._connect_properties(),
            )
        except (OSError, ValueError, LinkError) as error:
            return _Ending(was_connected=False, text=in_words(error))
        with self._lock:
            self._client, self._in_flight = client, InFlight()
        client.loop_start()
        if self._settled.wait(self._keepalive_s):
            self._ended.wait()
        else:
            self._end_reason = f"no answer in {self._keepalive_s} s"
        client.loop_stop()
        with self._lock:
            was_connected = self._connected.is_set()
            self._connected.clear()
            self._client = None
            self._pending_subscriptions.clear()
        for done in self._in_flight.close():
            self._guard(done, False)
        return _Ending(was_connected, self._end_reason or "the connection ended")

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.identity,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=self._manual_ack,
        )
        client.connect_timeout = 10.0
        client.tls_set_context(self.broker.tls())
        if self._will is not None:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = self._will.delay_s
            properties.ContentType = JSON
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True, properties=properties)
        client.on_socket_open = _send_at_once
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        return client

    def _connect_properties(self) -> Properties:
        properties = _properties(PacketTypes.CONNECT)
        # A will waits for its delay only as long as the session lives.
        delay_s = self._will.delay_s if self._will else 0
        properties.SessionExpiryInterval = max(self._keep_session_s, delay_s)
        return properties

    def _connack(
        self, client: Client, _userdata: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._end(f"refused: {code}")
            return
        with self._lock:
            self.counts.connections += 1
            filters = list(dict.fromkeys(each.topic_filter for each in self._subscriptions))
        for topic_filter in filters:
            _, mid = client.subscribe(topic_filter, qos=1)
            if mid is not None:
                self._pending_subscriptions.add(mid)
        if not filters:
            self._ready()

    def _subscribed(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        for code in codes:
            if code.is_failure:
                logger.error("%s: broker %s refused a subscription: %s", self.identity, self.broker, code)
        if mid not in self._pending_subscriptions:
            return
        self._pending_subscriptions.discard(mid)
        if not self._pending_subscriptions:
            self._ready()

    def _ready(self) -> None:
        logger.info("%s: connected to broker %s", self.identity, self.broker)
        self._connected.set()
        self._settled.set()
        if self._on_connected is not None:
            self._guard(self._on_connected)

    def _disconnected(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._end(f"connection lost ({code})")

    def _end(self, reason: str) -> None:
        if not self._end_reason:
            self._end_reason = reason
        self._ended.set()
        self._settled.set()

    def _published(
        self, _client: Client, _userdata: object, mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        done = self._in_flight.answered(mid, taken=not code.is_failure)
        if code.is_failure:
            self._complain("publication", f"the broker refused one: {code}")
        if done is not None:
            self._guard(done, not code.is_failure)

    def _message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        payload = bytes(message.payload)

        def ack() -> None:
            if self._manual_ack:
                client.ack(message.mid, message.qos)

        with self._lock:
            wanted = [each for each in self._subscriptions if topic_matches_sub(each.topic_filter, message.topic)]
        for subscription in wanted:
            try:
                value = subscription.decode(payload)
            except MessageError as error:
                self._complain(message.topic.rsplit("/", 1)[-1], str(error))
                ack()
                continue
            except Exception as error:  # noqa: BLE001 - raised on, it would end the thread that reads every message
                self._complain(message.topic.rsplit("/", 1)[-1], f"{type(error).__name__}: {error}")
                ack()
                continue
            received = Received(message.topic, payload, value, retain=message.retain, ack=ack)
            self._guard(subscription.handle, received)

    def _complain(self, kind: str, text: str) -> None:
        """Count a broken message; log only the first of its kind."""
        with self._lock:
            self.counts.broken[kind] += 1
            first = self.counts.broken[kind] == 1
        if first:
            logger.warning("%s: %s ignored: %s (further ones are only counted)", self.identity, kind, text)

    def _guard(self, call: Callable[..., None], *arguments: object) -> None:
        """Run a hook; its failure is logged and never ends the session."""
        try:
            call(*arguments)
        except Exception:
            logger.exception("%s: a handler failed", self.identity)


def _send_at_once(_client: Client, _userdata: object, connection: object) -> None:
    """Turn Nagle's algorithm off: our packets are small, and each would wait for the answer to the one before."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass(frozen=True, slots=True)
class _Ending:
    was_connected: bool
    text: str


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call] # paho leaves this one constructor untyped
