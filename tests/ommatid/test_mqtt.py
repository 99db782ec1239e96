import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ommatid.backoff import Backoff
from ommatid.contract.messages import Ack, State, decode, encode
from ommatid.contract.topics import Channel, DeviceTopics, every_device
from ommatid.errors import LinkError
from ommatid.mqtt import Broker, Received, Session, Will
from tests.support.broker import SERVER, Authority, Mosquitto, free_port

QUICK = Backoff(first_s=0.05, most_s=0.2)
TOPICS = DeviceTopics("acme", "cam-1")
WAIT_S = 15.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker", Authority(tmp_path / "pki"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def session(broker: Mosquitto) -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def make(identity: str, **options: object) -> Session:
        made = Session(broker.as_client(identity), identity, backoff=QUICK, **options)  # type: ignore[arg-type]
        sessions.append(made)
        return made

    yield make
    for each in sessions:
        each.stop()


def states(session: Session) -> "queue.Queue[Received[State]]":
    arrived: queue.Queue[Received[State]] = queue.Queue()
    session.subscribe(every_device(Channel.STATE), lambda payload: decode(payload, State), arrived.put)
    return arrived


def test_a_typed_message_travels_from_device_to_server(session: Callable[..., Session]) -> None:
    server, device = session(SERVER), session("cam-1")
    arrived = states(server)
    taken = threading.Event()
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    sent = device.publish(
        TOPICS.of(Channel.STATE), encode(State(online=True)), done=lambda ok: taken.set() if ok else None
    )

    assert sent
    assert arrived.get(timeout=WAIT_S).value == State(online=True)
    assert taken.wait(WAIT_S)


def test_a_broken_payload_is_counted_and_the_session_lives_on(session: Callable[..., Session]) -> None:
    server, device = session(SERVER), session("cam-1")
    arrived = states(server)
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    for payload in (b"\xff", b"{}", b"[]", encode(State(online=True))):
        device.publish(TOPICS.of(Channel.STATE), payload)

    assert arrived.get(timeout=WAIT_S).value.online
    assert server.counts.broken == {"state": 3}


def test_a_decoder_that_fails_in_another_way_does_not_end_the_session(session: Callable[..., Session]) -> None:
    server, device = session(SERVER), session("cam-1")
    arrived: queue.Queue[Received[int]] = queue.Queue()
    server.subscribe(every_device(Channel.STATE), int, arrived.put)
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    for payload in (b"no number", b"7"):
        device.publish(TOPICS.of(Channel.STATE), payload)

    assert arrived.get(timeout=WAIT_S).value == 7
    assert server.counts.broken == {"state": 1}


def test_a_failing_handler_does_not_end_the_session(session: Callable[..., Session]) -> None:
    server, device = session(SERVER), session("cam-1")
    calls: queue.Queue[int] = queue.Queue()

    def fail(_received: Received[State]) -> None:
        calls.put(1)
        raise RuntimeError("a bug")

    server.subscribe(every_device(Channel.STATE), lambda payload: decode(payload, State), fail)
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    for _ in range(2):
        device.publish(TOPICS.of(Channel.STATE), encode(State(online=True)))

    assert calls.get(timeout=WAIT_S) == calls.get(timeout=WAIT_S) == 1


def test_two_machines_with_one_identity_are_told_so(
    session: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    connections: queue.Queue[str] = queue.Queue()
    own = session("cam-1", on_connected=lambda: connections.put("up"))
    copy = session("cam-1")

    for each in (own, copy):
        each.start()
    for _ in range(5):
        connections.get(timeout=WAIT_S)

    assert "does another machine use this identity?" in caplog.text


def test_after_the_broker_is_killed_the_session_comes_back_with_its_subscriptions(
    broker: Mosquitto, session: Callable[..., Session]
) -> None:
    connections: queue.Queue[str] = queue.Queue()
    lost: queue.Queue[str] = queue.Queue()
    device = session("cam-1", on_connected=lambda: connections.put("up"), on_disconnected=lost.put)
    server = session(SERVER)
    acks: queue.Queue[Received[Ack]] = queue.Queue()
    device.subscribe(TOPICS.of(Channel.ACK), lambda payload: decode(payload, Ack), acks.put)
    device.start()
    server.start()
    connections.get(timeout=WAIT_S)

    broker.kill()
    lost.get(timeout=WAIT_S)
    offline = device.publish(TOPICS.of(Channel.STATE), encode(State(online=True)))
    broker.start()

    assert not offline
    assert connections.get(timeout=WAIT_S) == "up"
    assert server.wait_connected(WAIT_S)
    server.publish(TOPICS.of(Channel.ACK), encode(Ack(boot="0" * 32, seq=3)))
    assert acks.get(timeout=WAIT_S).value.seq == 3


def test_an_unanswered_publication_is_told_when_the_connection_ends(
    broker: Mosquitto, session: Callable[..., Session]
) -> None:
    device = session("cam-1")
    outcomes: queue.Queue[bool] = queue.Queue()
    device.start()
    assert device.wait_connected(WAIT_S)

    broker.kill()
    sent = [device.publish(TOPICS.of(Channel.STATE), b"{}", done=outcomes.put) for _ in range(50)]

    assert [outcomes.get(timeout=WAIT_S) for _ in range(sum(sent))] == [False] * sum(sent)


def test_the_last_will_appears_when_the_device_vanishes(broker: Mosquitto, session: Callable[..., Session]) -> None:
    server = session(SERVER)
    arrived = states(server)
    server.start()
    assert server.wait_connected(WAIT_S)
    will = Will(TOPICS.of(Channel.STATE), encode(State(online=False)), delay_s=1)
    address = broker.as_client("cam-1")
    device = Session(address, "cam-1", will=will, backoff=QUICK)
    device.start()
    assert device.wait_connected(WAIT_S)

    assert device._client is not None
    socket = device._client.socket()
    assert isinstance(socket, ssl.SSLSocket)
    device._stopping.set()
    socket.shutdown(2)

    assert not arrived.get(timeout=WAIT_S).value.online
    device.stop()


def test_an_orderly_stop_publishes_no_will(broker: Mosquitto, session: Callable[..., Session]) -> None:
    server = session(SERVER)
    arrived = states(server)
    server.start()
    assert server.wait_connected(WAIT_S)
    device = session("cam-1", will=Will(TOPICS.of(Channel.STATE), encode(State(online=False)), delay_s=0))
    device.start()
    assert device.wait_connected(WAIT_S)

    device.publish(TOPICS.of(Channel.STATE), encode(State(online=True)))
    assert arrived.get(timeout=WAIT_S).value.online
    device.stop()

    with pytest.raises(queue.Empty):
        arrived.get(timeout=0.5)


def test_a_message_that_was_not_acknowledged_is_delivered_again(
    broker: Mosquitto, session: Callable[..., Session]
) -> None:
    arrived: queue.Queue[Received[State]] = queue.Queue()
    device = session("cam-1")
    server = session(SERVER, manual_ack=True, keep_session_s=600)
    server.subscribe(every_device(Channel.STATE), lambda payload: decode(payload, State), arrived.put)
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    device.publish(TOPICS.of(Channel.STATE), encode(State(online=True)))
    arrived.get(timeout=WAIT_S)
    server.reconnect()

    again = arrived.get(timeout=WAIT_S)
    again.ack()
    assert again.value.online


def test_a_device_cannot_write_to_the_topics_of_another(session: Callable[..., Session]) -> None:
    server, device = session(SERVER), session("cam-1")
    arrived = states(server)
    outcomes: queue.Queue[bool] = queue.Queue()
    for each in (server, device):
        each.start()
        assert each.wait_connected(WAIT_S)

    device.publish(DeviceTopics("acme", "cam-2").of(Channel.STATE), encode(State(online=True)), done=outcomes.put)

    assert outcomes.get(timeout=WAIT_S) is False
    assert arrived.empty()


def test_the_session_keeps_trying_while_there_is_no_broker(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    crt, key = authority.issue("cam-1")
    failures: queue.Queue[str] = queue.Queue()
    session = Session(
        Broker("127.0.0.1", free_port(), authority.path, crt, key), "cam-1", backoff=QUICK, on_disconnected=failures.put
    )

    session.start()

    for _ in range(3):
        assert "refused" in failures.get(timeout=WAIT_S)
    session.stop()


def test_a_stranger_broker_is_not_trusted(tmp_path: Path, broker: Mosquitto) -> None:
    stranger = Authority(tmp_path / "stranger")
    crt, key = stranger.issue("cam-1")
    failures: queue.Queue[str] = queue.Queue()
    session = Session(
        Broker("127.0.0.1", broker.port, stranger.path, crt, key), "cam-1", backoff=QUICK, on_disconnected=failures.put
    )

    session.start()

    assert "verify failed" in failures.get(timeout=WAIT_S)
    session.stop()


def test_missing_certificates_are_one_clear_error(tmp_path: Path) -> None:
    missing = Broker("127.0.0.1", 1, tmp_path / "ca.crt", tmp_path / "a.crt", tmp_path / "a.key")

    with pytest.raises(LinkError, match="cannot be read") as caught:
        Session(missing, "cam-1").start()

    assert caught.value.hint


def test_waits_grow_to_a_ceiling_and_are_spread() -> None:
    backoff = Backoff(first_s=1.0, most_s=30.0)

    assert [backoff.ceiling_s(attempt) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.wait_s(3, 0.25) == 2.0
    assert backoff.ceiling_s(10_000) == 30.0
