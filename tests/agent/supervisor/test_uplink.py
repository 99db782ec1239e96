import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.spool import Spool
from agent.supervisor.uplink import Uplink
from ommatid.backoff import Backoff
from ommatid.contract.messages import Ack, Event, Hello, Report, State, Window, decode, decode_report, encode
from ommatid.contract.topics import Channel, DeviceTopics, every_device
from ommatid.contract.windows import decode_window
from ommatid.mqtt import Received, Session, Will
from tests.support.broker import SERVER, Authority, Mosquitto
from tests.support.clock import HandClock
from tests.support.programs import until

TOPICS = DeviceTopics("acme", "cam-1")
QUICK = Backoff(first_s=0.05, most_s=0.2)
WAIT_S = 15.0


@dataclass
class Server:
    """The server's side of the contract, on a real broker; it confirms when a test says so."""

    session: Session
    reports: "queue.Queue[Report]" = field(default_factory=queue.Queue)
    states: "queue.Queue[State]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        for channel in (Channel.REPORTED, Channel.EVENT):
            self.session.subscribe(every_device(channel), decode_report, self._keep)
        self.session.subscribe(every_device(Channel.WINDOW), decode_window, self._keep)
        self.session.subscribe(
            every_device(Channel.STATE), lambda payload: decode(payload, State), lambda got: self.states.put(got.value)
        )
        self.session.start()
        assert self.session.wait_connected(WAIT_S)

    def _keep(self, received: Received[Any]) -> None:
        self.reports.put(received.value)

    def confirm(self, report: Report) -> None:
        self.session.publish(TOPICS.of(Channel.ACK), encode(Ack(boot=report.boot, seq=report.seq)))

    def next(self) -> Report:
        return self.reports.get(timeout=WAIT_S)


@dataclass
class Device:
    """An uplink with its parts, and what it was told."""

    spool: Spool
    clock: HandClock
    desired: "queue.Queue[bytes]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.uplink = Uplink(
            TOPICS,
            self.spool,
            self.clock,
            state=lambda: State(online=True, spool=len(self.spool)),
            hello=lambda: {"agent": "0.1.0", "arch": "x86_64"},
            desired=self.desired.put,
            status_interval_s=10.0,
        )


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker", Authority(tmp_path / "pki"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def server(broker: Mosquitto) -> Iterator[Server]:
    server = Server(Session(broker.as_client(SERVER), SERVER, backoff=QUICK))
    yield server
    server.session.stop()


@pytest.fixture
def device(broker: Mosquitto, tmp_path: Path) -> Iterator[Device]:
    clock = HandClock()
    device = Device(Spool(tmp_path / "spool.db", clock), clock)
    yield device
    device.uplink.stop(State(online=False))
    device.spool.close()


def connect(device: Device, broker: Mosquitto) -> None:
    device.uplink.attach(
        Session(
            broker.as_client("cam-1"),
            "cam-1",
            will=Will(TOPICS.of(Channel.STATE), encode(State(online=False))),
            on_connected=device.uplink.connected_now,
            backoff=QUICK,
        )
    )


def until_empty(spool: Spool) -> None:
    until(lambda: not len(spool), "an empty spool", WAIT_S)


def test_what_was_spooled_offline_comes_in_order_and_leaves_only_when_confirmed(
    broker: Mosquitto, server: Server, device: Device
) -> None:
    device.spool.add(Event, name="first", severity="info", text="")
    device.spool.add(Window, source="cam", started_at="", duration_s=1.0, frames=1, dropped=0)

    connect(device, broker)

    arrived = sorted((server.next() for _ in range(3)), key=lambda report: report.seq)
    assert [type(report) for report in arrived] == [Event, Window, Hello]
    assert server.states.get(timeout=WAIT_S).online
    assert len(device.spool) == 3
    server.confirm(arrived[1])
    server.confirm(arrived[2])
    until_empty(device.spool)


def test_unconfirmed_reports_are_sent_again_after_a_while(broker: Mosquitto, server: Server, device: Device) -> None:
    connect(device, broker)
    first = server.next()

    device.uplink.tick()
    device.clock.pass_s(11)
    device.uplink.tick()

    assert server.next() == first


def test_confirmations_that_confirm_nothing_new_do_not_put_off_sending_again(
    broker: Mosquitto, server: Server, device: Device
) -> None:
    # given: a report was lost on its way, behind one that is confirmed
    connect(device, broker)
    first = server.next()
    server.confirm(first)
    until_empty(device.spool)
    device.spool.add(Event, name="lost", severity="info", text="")
    device.uplink.flush()
    lost = server.next()

    # when: later ones arrive every few seconds, and the server says each time how far there is no gap
    arrived: list[Report] = []
    for number in range(4):
        device.clock.pass_s(4)
        device.spool.add(Event, name=f"later-{number}", severity="info", text="")
        device.uplink.tick()
        while not arrived or arrived[-1].seq < lost.seq + 1 + number:
            arrived.append(server.next())
        server.confirm(first)
        server.session.publish(TOPICS.of(Channel.DESIRED), b"said after the confirmation")
        device.desired.get(timeout=WAIT_S)

    # then: the lost one was sent again all the same
    assert lost in arrived


def test_a_broker_that_was_killed_loses_no_report(broker: Mosquitto, server: Server, device: Device) -> None:
    connect(device, broker)
    server.confirm(server.next())
    until_empty(device.spool)

    broker.kill()
    device.spool.add(Event, name="meanwhile", severity="info", text="")
    device.uplink.flush()
    broker.start()

    # The device may be back before the server is: then it must speak again when nobody confirms.
    seen: dict[int, Report] = {}
    for _ in range(30):
        try:
            report = server.reports.get(timeout=0.5)
        except queue.Empty:
            device.clock.pass_s(11)
            device.uplink.tick()
            continue
        seen[report.seq] = report
        if len(seen) == 2:
            break
    assert [type(seen[seq]) for seq in sorted(seen)] == [Event, Hello]
    server.confirm(seen[max(seen)])
    until_empty(device.spool)


def test_desired_documents_are_handed_over_as_they_are(broker: Mosquitto, server: Server, device: Device) -> None:
    server.session.publish(TOPICS.of(Channel.DESIRED), b"signed bytes", retain=True)

    connect(device, broker)

    assert device.desired.get(timeout=WAIT_S) == b"signed bytes"


def test_the_state_is_published_when_its_time_has_come(broker: Mosquitto, server: Server, device: Device) -> None:
    connect(device, broker)
    server.states.get(timeout=WAIT_S)

    device.uplink.tick()
    device.clock.pass_s(10)
    device.uplink.tick()

    assert server.states.get(timeout=WAIT_S).online
    assert server.states.empty()


def test_a_good_bye_is_the_last_state(broker: Mosquitto, server: Server, device: Device) -> None:
    connect(device, broker)
    assert server.states.get(timeout=WAIT_S).online

    device.uplink.stop(State(online=False, spool=1))

    assert server.states.get(timeout=WAIT_S) == State(online=False, spool=1)
