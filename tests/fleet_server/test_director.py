"""Desired state: decided, stored, then published, and signed again before it expires."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from tuf.api.metadata import Metadata, Targets

from fleet_server.database.engine import Database
from fleet_server.database.models import Device, Release
from fleet_server.director import RENEW_BEFORE, Director
from fleet_server.signing.director import DOCUMENT_DAYS
from tests.support.small_fleet import MovingTime, RecordingDownlink

NOW = datetime(2027, 5, 4, 10, tzinfo=UTC)


class Desk:
    def __init__(self, folder: Path) -> None:
        self.database = Database.at(folder / "fleet.db")
        self.database.migrate()
        self.time = MovingTime(NOW)
        self.downlink = RecordingDownlink()
        self.director = Director(self.database, CryptoSigner.generate_ed25519(), self.downlink, self.time)

    def enrol(self, *names: str) -> None:
        with self.database.write() as session:
            for name in names:
                row = Device(id=name, tenant="default", enrolled_at=NOW, certificate_serial="1", tags=[])
                row.http_token_hash = name
                session.add(row)
                session.flush()
                self.director.assign(session, row, None)
        self.downlink.sent.clear()

    def signed(self, index: int = -1) -> Targets:
        return Metadata[Targets].from_bytes(self.downlink.sent[index][1].encode()).signed


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_document_is_published_after_the_commit_and_not_before(desk: Desk) -> None:
    desk.enrol("cam")

    with desk.database.write() as session:
        desk.director.assign(session, session.get_one(Device, "cam"), None)
        assert desk.downlink.sent == []

    assert [topic.rsplit("/", 2)[1:] for topic, _document in desk.downlink.sent] == [["cam", "desired"]]


def test_a_decision_that_is_rolled_back_is_never_published(desk: Desk) -> None:
    desk.enrol("cam")

    def decide_and_fail() -> None:
        with desk.database.write() as session:
            desk.director.assign(session, session.get_one(Device, "cam"), None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        decide_and_fail()

    assert desk.downlink.sent == []


def test_revisions_grow_over_the_whole_fleet(desk: Desk) -> None:
    desk.enrol("cam-1", "cam-2")

    with desk.database.write() as session:
        revs = [
            desk.director.assign(session, session.get_one(Device, name), None) for name in ("cam-1", "cam-2", "cam-1")
        ]

    assert revs == [3, 4, 5]
    assert [desk.signed(index).version for index in (0, 1)] == [5, 4]  # two for one device: the newer is published


def test_a_document_names_the_release_and_its_device(desk: Desk) -> None:
    desk.enrol("cam")
    release = Release(
        tenant="default",
        model="detector",
        version="1",
        target="fp32",
        path="detector/detector-1-fp32.bundle",
        digest="a" * 64,
        length=7,
        hardware=["x86_64"],
        minimum_agent="0.1.0",
        release_counter=1,
        manifest={},
        evidence={},
        pushed_at=NOW,
        pushed_by="me",
    )

    with desk.database.write() as session:
        session.add(release)
        session.flush()
        desk.director.assign(session, session.get_one(Device, "cam"), release)

    signed = desk.signed()
    target = signed.targets["detector/detector-1-fp32.bundle"]
    assert (target.length, target.hashes) == (7, {"sha256": "a" * 64})
    assert (signed.unrecognized_fields["device"], signed.unrecognized_fields["tenant"]) == ("cam", "default")


def test_documents_are_signed_again_before_they_expire_and_say_the_same(desk: Desk) -> None:
    desk.enrol("cam-1", "cam-2")
    before = desk.time.at

    assert desk.director.renew_due() == 0
    desk.time.at = before + timedelta(days=DOCUMENT_DAYS) - RENEW_BEFORE + timedelta(seconds=1)
    assert desk.director.renew_due() == 2

    assert desk.signed().expires > before + timedelta(days=DOCUMENT_DAYS)
    assert desk.director.renew_due() == 0


def test_a_broker_that_came_back_gets_every_document_but_those_of_revoked_devices(desk: Desk) -> None:
    desk.enrol("cam-1", "cam-2", "cam-3")
    with desk.database.write() as session:
        session.get_one(Device, "cam-2").revoked_at = NOW

    desk.director.publish_all()

    with desk.database.read() as session:
        stored = {row.id: row.desired_document for row in session.scalars(select(Device))}
    assert sorted(document for _topic, document in desk.downlink.sent) == sorted(
        [stored["cam-1"] or "", stored["cam-3"] or ""]
    )
