"""The broker that the server runs: who may do what, and what happens when it dies."""

import os
import queue
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from fleet_server.broker import MAX_QUEUED_BYTES, access_list
from ommatid.contract.messages import MAX_MESSAGE_BYTES, Ack, State, encode
from ommatid.contract.topics import Channel
from ommatid.mqtt import Received, Session
from tests.support.fake_device import FakeDevice
from tests.support.fleet_server import FleetServer
from tests.support.programs import until


def devices(server: FleetServer) -> dict[str, dict[str, object]]:
    with server.client() as client:
        return {device["id"]: device for device in client.get("/v1/devices")}


def test_the_rules_name_each_channel_once() -> None:
    rules = access_list().splitlines()

    for channel in Channel:
        assert sum(rule.endswith(f"%u/{channel}") for rule in rules) == 1


def test_a_device_that_says_hello_hears_what_it_shall_run(server: FleetServer, tmp_path: Path) -> None:
    device = FakeDevice.enrol(server, tmp_path, "greeter", tags=("lab",))
    device.connect()
    retained = device.desired.get(timeout=20)

    device.send(device.hello(1, agent="0.1.7"))

    device.wait_ack(1)
    assert device.desired.get(timeout=20) == retained
    with server.http(device.answer.http_token) as http:
        assert http.get(f"/v1/director/{device.name}.json").content == retained
    row = devices(server)["greeter"]
    assert (row["agent"], row["arch"], row["tags"]) == ("0.1.7", "x86_64", ["lab"])
    device.close()


def test_the_last_will_and_the_state_reach_the_database(server: FleetServer, tmp_path: Path) -> None:
    device = FakeDevice.enrol(server, tmp_path, "stateful")
    device.connect()

    device.say(State(online=True, agent="0.1.0"))
    until(lambda: devices(server)["stateful"]["online"], "the state")
    device.say(State(online=False))

    until(lambda: not devices(server)["stateful"]["online"], "the last will")
    device.close()


class Listener:
    """The server's view of a topic, through a session of another device."""

    def __init__(self, session: Session, topic: str) -> None:
        self.heard = threading.Event()

        def hear(_received: Received[bytes]) -> None:
            self.heard.set()

        session.subscribe(topic, bytes, hear)


@pytest.mark.parametrize("channel", list(Channel))
def test_a_device_can_neither_write_nor_read_anothers_topics(
    server: FleetServer, tmp_path: Path, channel: Channel
) -> None:
    thief, victim = (
        FakeDevice.enrol(server, tmp_path, f"thief-{channel}"),
        FakeDevice.enrol(server, tmp_path, f"victim-{channel}"),
    )
    refused = threading.Event()
    listener = Listener(thief.session, victim.topics.of(channel))
    everything = Listener(thief.session, "#")
    thief.connect()
    everything.heard.clear()

    thief.session.publish(victim.topics.of(channel), b"{}", done=lambda taken: None if taken else refused.set())

    assert refused.wait(20)
    assert not listener.heard.is_set()
    thief.close()


@pytest.mark.parametrize("channel", [Channel.DESIRED, Channel.CMD, Channel.ACK])
def test_a_device_cannot_speak_for_the_server(server: FleetServer, tmp_path: Path, channel: Channel) -> None:
    device = FakeDevice.enrol(server, tmp_path, f"forger-{channel}")
    refused = threading.Event()
    device.connect()

    forged = encode(Ack(boot=device.boot, seq=1))
    device.session.publish(device.topics.of(channel), forged, done=lambda taken: None if taken else refused.set())

    assert refused.wait(20)
    device.close()


def test_a_device_that_calls_itself_the_server_kicks_nobody(server: FleetServer, tmp_path: Path) -> None:
    device = FakeDevice.enrol(server, tmp_path, "pretender")
    impostor = Session(device.broker, "fleet-server")
    impostor.start()
    assert impostor.wait_connected(20)

    device.connect()  # the same identity takes the impostor's place, whatever it called itself
    device.send(device.hello(1))

    device.wait_ack(1)
    impostor.stop()
    device.close()


def test_a_client_without_a_certificate_of_the_fleet_is_refused(
    server: FleetServer, own_server: FleetServer, tmp_path: Path
) -> None:
    device = FakeDevice.enrol(own_server, tmp_path, "stranger")
    files = (server.folder / "authority" / "ca.crt", device.folder / "device.crt", device.folder / "device.key")
    ended = threading.Event()
    broker = type(device.broker)("localhost", server.mqtt_port, *files)
    session = Session(broker, "stranger", on_disconnected=lambda _reason: ended.set())

    session.start()

    assert ended.wait(20)
    assert not session.connected
    session.stop()


def test_revoking_cuts_the_open_session_for_good(server: FleetServer, tmp_path: Path) -> None:
    device = FakeDevice.enrol(server, tmp_path, "stolen")
    device.connect()

    server.call("revoke", "stolen")

    until(lambda: not device.session.connected, "the end of the session")
    before = device.session.counts.connections
    assert not device.session.wait_connected(2)
    assert device.session.counts.connections == before
    with server.http(device.answer.http_token) as http:
        assert http.get("/v1/director/stolen.json").status_code == 401
    device.close()


class TestDeath:
    @pytest.fixture
    def device(self, own_server: FleetServer, tmp_path: Path) -> FakeDevice:
        device = FakeDevice.enrol(own_server, tmp_path, "survivor")
        device.connect()
        device.desired.get(timeout=20)
        return device

    def test_mosquitto_killed_comes_back_and_desired_state_with_it(
        self, own_server: FleetServer, device: FakeDevice
    ) -> None:
        first = own_server.broker_pid

        os.kill(first, signal.SIGKILL)

        assert device.desired.get(timeout=30)
        assert own_server.broker_pid != first
        device.send(device.hello(1))
        device.wait_ack(1)
        device.close()

    def test_the_server_killed_takes_over_from_its_orphan(self, own_server: FleetServer, device: FakeDevice) -> None:
        orphan = own_server.broker_pid
        own_server.kill()

        own_server.start()

        assert own_server.broker_pid != orphan
        assert device.desired.get(timeout=30)
        device.send(device.event(2))
        device.send(device.hello(1))
        device.wait_ack(2)
        device.close()

    def test_what_was_sent_while_the_server_was_down_is_stored(
        self, own_server: FleetServer, device: FakeDevice
    ) -> None:
        own_server.kill()  # its broker lives on, and keeps what devices say
        for seq in (1, 2, 3):
            device.send(device.event(seq))

        own_server.start()

        device.send(device.event(4))
        for seq in (1, 2, 3):
            device.send(device.event(seq))  # as an agent does after a reconnection
        device.wait_ack(4)
        device.close()

    def test_stopping_ends_mosquitto_too(self, own_server: FleetServer, device: FakeDevice) -> None:
        pid = own_server.broker_pid
        device.close()

        status = own_server.stop()

        assert status == 0
        assert not Path(f"/proc/{pid}").exists()


def test_a_device_that_floods_a_stalled_server_fills_no_memory(own_server: FleetServer, tmp_path: Path) -> None:
    # given a server that reads nothing for a while
    flooder, honest = (FakeDevice.enrol(own_server, tmp_path, name) for name in ("flooder", "honest"))
    for device in (flooder, honest):
        device.connect()
    content = b"\0" * (MAX_MESSAGE_BYTES - 1024)
    taken = threading.Semaphore(0)
    before = resident_bytes(own_server.broker_pid)

    # when
    with own_server.stalled():
        for _ in range(6 * MAX_QUEUED_BYTES // len(content)):
            flooder.session.publish(flooder.topics.of(Channel.EVENT), content, done=lambda _: taken.release())
        for _ in range(6 * MAX_QUEUED_BYTES // len(content)):
            assert taken.acquire(timeout=60)
        grown = resident_bytes(own_server.broker_pid) - before

    # then the rest was dropped, and a device that sends again what nobody confirmed gets through
    assert grown < 3 * MAX_QUEUED_BYTES  # the queue, what is in flight, and copies of it
    flooder.close()
    until(lambda: sent_again(honest), "a confirmation")
    honest.close()


def sent_again(device: FakeDevice) -> bool:
    device.send(device.event(1))
    with suppress(queue.Empty):
        return device.acks.get(timeout=0.5).seq == 1
    return False


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
