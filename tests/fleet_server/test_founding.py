"""A new fleet, and what its server does from time to time."""

import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select
from tuf.api.metadata import Metadata, Timestamp

from fleet_server.app import compose
from fleet_server.database.models import Device, Release, StoredReport
from fleet_server.founding import Founded, found
from fleet_server.housekeeping import SILENT, expiry_warnings, forget_old_reports, mark_silent
from fleet_server.services import Services
from fleet_server.settings import Settings, load_settings
from fleet_server.signing.errors import KeyFileError
from fleet_server.signing.release import TARGETS_DAYS, add_target
from ommatid.contract.digests import sha256_file
from ommatid.contract.trust.facts import ReleaseFacts, release_path
from ommatid.errors import BadInputError
from tests.support.small_bundle import small_bundle
from tests.support.small_fleet import MovingTime

NOW = datetime(2027, 5, 4, 10, tzinfo=UTC)


@pytest.fixture
def founded(tmp_path: Path) -> Founded:
    return found(tmp_path / "server", tmp_path / "keys", Settings(), None, NOW)


@pytest.fixture
def clock() -> MovingTime:
    return MovingTime(NOW)


@pytest.fixture
def parts(founded: Founded, clock: MovingTime) -> Services:
    return compose(founded.places.root, founded.settings, clock)


def publish(parts: Services, founded: Founded, tmp_path: Path) -> list[Release]:
    """Bring one release in, as `fleet push` does over HTTP."""
    bundle = tmp_path / "detector.bundle"
    manifest = small_bundle(bundle)
    facts = ReleaseFacts(
        model=manifest.name,
        version=manifest.version,
        target=manifest.target,
        hardware=manifest.compatible.arch,
        release_counter=1,
        minimum_agent=manifest.compatible.minimum_agent,
    )
    digest = sha256_file(bundle)
    shutil.copy(bundle, parts.places.bundles / digest)
    document = add_target(
        parts.releases.current().targets,
        [founded.keys.targets_signer(None)],
        release_path(facts),
        length=bundle.stat().st_size,
        sha256=digest,
        facts=facts,
        now=parts.now(),
    )
    return parts.releases.publish(document, "anna")


def test_every_secret_is_for_its_owner_alone(founded: Founded) -> None:
    secrets = [*founded.places.root.rglob("*.key"), *founded.keys.folder.glob("*.key"), founded.places.operator_token]

    assert len(secrets) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_no_release_key_is_on_the_server(founded: Founded) -> None:
    names = {path.name for path in founded.places.root.rglob("*.key")}

    assert names == {"snapshot.key", "timestamp.key", "director.key", "ca.key"}


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    settings = Settings(tenant="north", host="::", name="fleet.example", more_names=("10.0.0.7",), http_port=9443)
    founded = found(tmp_path / "server", tmp_path / "keys", settings, None, NOW)

    assert load_settings(founded.places.settings) == settings
    assert settings.names == ("fleet.example", "10.0.0.7", "localhost", "127.0.0.1")


@pytest.mark.parametrize("line", ["http_port = 0", "htp_port = 1", "tenant = 'A/B'", "= 1"])
def test_a_wrong_setting_is_named(founded: Founded, line: str) -> None:
    founded.places.settings.write_text(line)

    with pytest.raises(BadInputError, match=r"fleet\.toml"):
        load_settings(founded.places.settings)


def test_what_is_there_is_never_overwritten(founded: Founded, tmp_path: Path) -> None:
    before = founded.places.operator_token.read_text()

    with pytest.raises(BadInputError, match="something already"):
        found(founded.places.root, tmp_path / "other-keys", Settings(), None, NOW)
    with pytest.raises(BadInputError, match="something already"):
        found(tmp_path / "other", founded.keys.folder, Settings(), None, NOW)

    assert founded.places.operator_token.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "server"]


def test_release_keys_in_the_servers_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="would lie in the server's folder"):
        found(tmp_path / "server", tmp_path / "server" / "keys", Settings(), None, NOW)

    assert list(tmp_path.iterdir()) == []


def test_a_clock_in_1970_leaves_nothing_half_made(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="clock"):
        found(tmp_path / "server", tmp_path / "keys", Settings(), None, datetime(1970, 1, 1, tzinfo=UTC))

    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_guards_the_release_keys_alone(tmp_path: Path) -> None:
    founded = found(tmp_path / "server", tmp_path / "keys", Settings(), b"correct horse", NOW)

    assert founded.keys.targets_signer(b"correct horse")
    assert compose(founded.places.root, founded.settings)
    with pytest.raises(KeyFileError, match="needs a passphrase"):
        founded.keys.targets_signer(None)


def test_a_server_that_died_after_publishing_finds_the_release_when_it_starts(
    parts: Services, founded: Founded, tmp_path: Path
) -> None:
    publish(parts, founded, tmp_path)
    with parts.database.write() as session:
        session.execute(delete(Release))

    parts.releases.reconcile()

    assert [release.path for release in parts.releases.every("default")] == ["detector/detector-1.0-int8-arm.bundle"]


def test_snapshot_and_timestamp_are_signed_again_each_day(parts: Services, clock: MovingTime) -> None:
    first = Metadata[Timestamp].from_bytes(parts.releases.document("timestamp.json")).signed

    assert not parts.releases.renew_due()
    clock.pass_s(86_400 + 1)
    assert parts.releases.renew_due()
    assert not parts.releases.renew_due()

    second = Metadata[Timestamp].from_bytes(parts.releases.document("timestamp.json")).signed
    assert (second.version, second.expires - first.expires) == (first.version + 1, timedelta(days=1, seconds=1))


def test_a_device_that_went_silent_counts_as_offline(parts: Services, clock: MovingTime) -> None:
    with parts.database.write() as session:
        for name, silent_s in (("heard", 10.0), ("silent", SILENT.total_seconds() + 1)):
            seen = clock.at - timedelta(seconds=silent_s)
            row = Device(id=name, tenant="default", enrolled_at=NOW, certificate_serial="1", tags=[])
            row.http_token_hash, row.online, row.last_seen = name, True, seen
            session.add(row)

    assert mark_silent(parts) == 1

    with parts.database.read() as session:
        assert session.scalars(select(Device.id).where(Device.online)).all() == ["heard"]


def test_what_only_the_release_keys_can_sign_again_is_warned_of_in_time(parts: Services, clock: MovingTime) -> None:
    assert expiry_warnings(parts) == []

    clock.pass_s(timedelta(days=TARGETS_DAYS - 30).total_seconds())

    (warning,) = expiry_warnings(parts)
    assert "targets expires in 30 days" in warning
    assert "fleet extend" in warning


def test_reports_are_kept_as_long_as_the_settings_say(parts: Services, clock: MovingTime) -> None:
    with parts.database.write() as session:
        row = Device(id="cam", tenant="default", enrolled_at=NOW, certificate_serial="1", http_token_hash="1", tags=[])
        session.add(row)
        session.flush()
        for seq, days in ((1, 91), (2, 89)):
            at = NOW - timedelta(days=days)
            report = StoredReport(tenant="default", device_id="cam", boot="0" * 32, seq=seq, kind="event", body={})
            report.received_at = at
            session.add(report)

    assert forget_old_reports(parts) == 1

    with parts.database.read() as session:
        assert session.scalars(select(StoredReport.seq)).all() == [2]
