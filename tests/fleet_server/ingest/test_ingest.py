"""Reports through a real broker into a real database."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from sqlalchemy import select

from fleet_server.database.engine import Database
from fleet_server.database.models import Audit, StoredReport
from ommatid.contract.messages import Window, encode
from ommatid.contract.topics import Channel, DeviceTopics
from ommatid.contract.windows import encode_window
from ommatid.mqtt import CBOR
from tests.support.fake_device import FakeDevice, now_text
from tests.support.fleet_server import FleetServer
from tests.support.programs import until


@pytest.fixture
def device(server: FleetServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeDevice]:
    name = str(request.node.name).removeprefix("test_").replace("_", "-")[:60].strip("-")
    device = FakeDevice.enrol(server, tmp_path, name)
    device.connect()
    yield device
    device.close()


def stored(server: FleetServer, device: FakeDevice) -> list[tuple[int, str]]:
    database = Database.at(server.folder / "fleet.db")
    with database.read() as session:
        rows = session.scalars(select(StoredReport).where(StoredReport.device_id == device.name))
        found = sorted((row.seq, row.kind) for row in rows)
    database.close()
    return found


def refused(server: FleetServer, device: FakeDevice) -> list[str]:
    database = Database.at(server.folder / "fleet.db")
    with database.read() as session:
        rows = session.scalars(select(Audit).where(Audit.subject == device.name, Audit.what == "refused"))
        found = [str(row.detail["reason"]) for row in rows]
    database.close()
    return found


def test_replayed_reports_are_stored_once(server: FleetServer, device: FakeDevice) -> None:
    for seq in (1, 2, 3, 2, 1, 3, 3, 2, 1, 4):
        device.send(device.event(seq))

    device.wait_ack(4)
    assert stored(server, device) == [(seq, "event") for seq in (1, 2, 3, 4)]


def test_what_lies_behind_a_gap_is_acknowledged_when_the_gap_closes(server: FleetServer, device: FakeDevice) -> None:
    device.send(device.event(1))
    device.send(device.event(3))
    device.wait_ack(1)
    until(lambda: len(stored(server, device)) == 2, "both reports")
    while not device.acks.empty():
        assert device.acks.get().seq == 1

    device.send(device.event(2))

    device.wait_ack(3)


def test_a_report_that_was_stored_is_acknowledged_again(server: FleetServer, device: FakeDevice) -> None:
    device.send(device.event(1))
    device.wait_ack(1)

    device.send(device.event(1))

    device.wait_ack(1)


def test_windows_come_as_cbor_and_count_like_any_report(server: FleetServer, device: FakeDevice) -> None:
    window = Window(
        boot=device.boot,
        seq=1,
        uptime_s=1,
        sent_at=now_text(),
        source="cam",
        started_at=now_text(),
        duration_s=900,
        frames=9,
        dropped=0,
        classes={"person": 3},
    )

    device.session.publish(device.topics.of(Channel.WINDOW), encode_window(window), content_type=CBOR)

    device.wait_ack(1)
    assert stored(server, device) == [(1, "window")]


def test_a_flood_is_stored_whole(server: FleetServer, device: FakeDevice) -> None:
    for seq in range(1, 2001):
        device.send(device.event(seq))

    device.wait_ack(2000)
    assert Counter(kind for _seq, kind in stored(server, device)) == {"event": 2000}


def test_messages_that_cannot_be_understood_stop_nothing(server: FleetServer, device: FakeDevice) -> None:
    reported = device.topics.of(Channel.REPORTED)
    for garbage in (b"", b"{", b"[]", b'{"kind":"nonsense"}', b"\xff\x00" * 50, b"[" * 5000):
        device.session.publish(reported, garbage)
        device.session.publish(device.topics.of(Channel.WINDOW), garbage)
        device.session.publish(device.topics.of(Channel.STATE), garbage)

    device.send(device.event(1))

    device.wait_ack(1)


def test_a_device_cannot_report_for_another_tenant(server: FleetServer, device: FakeDevice) -> None:
    elsewhere = DeviceTopics("elsewhere", device.name)

    device.session.publish(elsewhere.of(Channel.EVENT), encode(device.event(1)))

    until(lambda: refused(server, device) == ["of another tenant"], "the refusal")
    device.send(device.event(2))
    until(lambda: stored(server, device) == [(2, "event")], "the report")


def test_a_number_beyond_all_reason_takes_no_other_message_with_it(server: FleetServer, device: FakeDevice) -> None:
    reported = device.topics.of(Channel.REPORTED)
    monster = device.hello(1).model_copy(update={"memory_bytes": 2**70})

    device.session.publish(reported, encode(monster))
    device.send(device.event(1))

    device.wait_ack(1)
    assert stored(server, device) == [(1, "event")]
    token = (server.folder / "operator.token").read_text().strip()
    with server.http(token) as http:
        figures = http.get("/metrics").text.splitlines()
    broken = next(float(line.split()[1]) for line in figures if line.startswith("ommatid_fleet_messages_broken "))
    assert broken >= 1


def test_a_report_on_the_wrong_channel_is_refused(server: FleetServer, device: FakeDevice) -> None:
    device.session.publish(device.topics.of(Channel.EVENT), encode(device.hello(1)))

    until(lambda: refused(server, device) == ["a report on channel event"], "the refusal")


@pytest.mark.parametrize("payload", [{10**6000: 1}, {(1, (2,)): 1}], ids=["huge", "tuple"])
def test_a_hostile_window_stops_nobody(
    server: FleetServer, tmp_path: Path, payload: dict[object, object], request: pytest.FixtureRequest
) -> None:
    hostile, honest = (
        FakeDevice.enrol(server, tmp_path, f"{kind}-{request.node.callspec.id}") for kind in ("hostile", "honest")
    )
    for device in (hostile, honest):
        device.connect()

    hostile.session.publish(hostile.topics.of(Channel.WINDOW), cbor2.dumps(payload), content_type=CBOR)
    hostile.send(hostile.event(1))
    hostile.wait_ack(1)
    honest.send(honest.event(1))

    honest.wait_ack(1)
    for device in (hostile, honest):
        device.close()
