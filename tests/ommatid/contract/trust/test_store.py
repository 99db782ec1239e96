import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet_server.signing.director import DirectedTarget
from fleet_server.signing.release import create_release, extend_targets, renew
from ommatid.contract.messages import MAX_COUNT
from ommatid.contract.trust.clock import BUILD_DATE
from ommatid.contract.trust.errors import (
    AgentTooOldError,
    ExpiredError,
    FloorsLostError,
    MetadataFormatError,
    NotReleasedError,
    OlderReleaseError,
    ReplayedError,
    RootMismatchError,
    SignatureError,
    WrongDeviceError,
    WrongHardwareError,
)
from ommatid.errors import LinkError, TrustError
from tests.support.device_trust import Device
from tests.support.repository import RELEASE_URL, TODAY, Fleet, new_key


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def device(tmp_path: Path, fleet: Fleet) -> Device:
    return Device(tmp_path / "trust", fleet)


def refused(device: Device, error: type[TrustError], document: bytes, **how: object) -> TrustError:
    """Check that exactly this error comes, with a hint, and that nothing of the state changed."""
    device.store.floors()
    before = device.state()

    with pytest.raises(TrustError) as caught:
        device.check(document, **how)  # type: ignore[arg-type] # passed on as they came

    assert type(caught.value) is error, caught.value
    assert caught.value.hint
    assert device.state() == before
    return caught.value


def test_what_both_sides_name_is_assigned(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0", content=b"the bundle")

    assignment = device.check(fleet.direct(target))

    assert assignment is not None
    assert (assignment.path, assignment.length, assignment.sha256) == (target.path, 10, target.sha256)
    assert (assignment.model, assignment.version, assignment.target) == ("detector", "1.0", "int8-arm")
    assert (assignment.rev, assignment.release_counter) == (1, 1)


def test_the_same_document_again_gives_the_same_answer_and_writes_nothing(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    first = device.check(document)
    before = device.state()

    assert device.check(document) == first
    assert device.state() == before


def test_a_document_may_say_to_run_nothing(device: Device, fleet: Fleet) -> None:
    assert device.check(fleet.direct(None)) is None
    assert device.store.floors().director_version == 1


def test_an_operator_finds_the_trusted_metadata(device: Device, fleet: Fleet) -> None:
    device.check(fleet.direct(fleet.push("1.0")))

    names = {path.name for path in device.folder.glob("*.json")}
    assert names == {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    assert all(json.loads((device.folder / name).read_bytes())["signed"] for name in names)


# Attacks, each with its own error.


def test_a_replayed_document_is_refused(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    old = fleet.direct(target)
    device.check(old)
    device.check(fleet.direct(target))

    assert "version 1, but 2 was accepted" in str(refused(device, ReplayedError, old))


def test_another_document_of_the_same_version_is_refused(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    device.check(fleet.direct(target, rev=5))

    refused(device, ReplayedError, fleet.direct(None, rev=5))


def test_an_expired_document_is_refused(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))

    error = refused(device, ExpiredError, document, now=TODAY + timedelta(days=31))

    assert "issued 2026-11-10T07:00:00Z" in str(error)


@pytest.mark.parametrize("who", [{"device": "camera-2"}, {"tenant": "other"}])
def test_a_document_for_another_device_is_refused_and_does_no_harm(
    device: Device, fleet: Fleet, who: dict[str, str]
) -> None:
    target = fleet.push("1.0")
    device.check(fleet.direct(target))

    refused(device, WrongDeviceError, fleet.direct(target, rev=50, **who))  # type: ignore[arg-type] # only names

    assert device.check(fleet.direct(target, rev=2)) is not None


def test_a_stolen_director_key_cannot_name_what_was_never_released(device: Device, fleet: Fleet) -> None:
    fleet.push("1.0")
    forged = DirectedTarget("detector/detector-6.6-int8-arm.bundle", 666, "6" * 64, "detector")

    assert "never signed" in str(refused(device, NotReleasedError, fleet.direct(forged)))


@pytest.mark.parametrize("change", [{"sha256": "6" * 64}, {"length": 4}])
def test_a_stolen_director_key_cannot_give_a_release_other_content(
    device: Device, fleet: Fleet, change: dict[str, str]
) -> None:
    released = fleet.push("1.0")

    error = refused(device, NotReleasedError, fleet.direct(replace(released, **change)))  # type: ignore[arg-type]

    assert "other content" in str(error)


def test_a_stolen_director_key_cannot_bring_an_older_release_back(device: Device, fleet: Fleet) -> None:
    old, previous, current = fleet.push("1.0"), fleet.push("2.0"), fleet.push("3.0")
    device.check(fleet.direct(current))
    device.store.raise_counter_floor("detector", 2)

    assert "release 1 is older than release 2" in str(refused(device, OlderReleaseError, fleet.direct(old)))
    assert device.check(fleet.direct(previous)) is not None


def test_the_counter_floor_never_falls(device: Device) -> None:
    device.store.raise_counter_floor("detector", 5)
    device.store.raise_counter_floor("detector", 2)
    device.store.raise_counter_floor("other", 1)

    assert device.store.floors().counters == {"detector": 5, "other": 1}


def test_hardware_is_what_the_release_side_signed(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0", hardware=("x86_64",)))

    refused(device, WrongHardwareError, document)
    assert device.check(document, hardware="x86_64") is not None


@pytest.mark.parametrize("needed", ["0.1.1", "0.2", "1"])
def test_a_release_for_a_newer_agent_is_refused(device: Device, fleet: Fleet, needed: str) -> None:
    refused(device, AgentTooOldError, fleet.direct(fleet.push("1.0", minimum_agent=needed)))


def test_a_strangers_document_is_refused(device: Device, fleet: Fleet) -> None:
    refused(device, SignatureError, fleet.direct(fleet.push("1.0"), key=new_key()))


def test_a_strangers_release_repository_is_refused(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    stranger = Fleet()
    stranger.push("1.0")
    fleet.files |= {name: content for name, content in stranger.files.items() if "root" not in name}

    refused(device, SignatureError, document)


def test_a_strangers_next_root_is_refused(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    stranger = Fleet()
    stranger.rotate_release_root()
    fleet.files[f"{RELEASE_URL}2.root.json"] = stranger.release.root

    refused(device, RootMismatchError, document)


def test_a_strangers_next_director_root_is_refused(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    stranger = Fleet()
    stranger.rotate_online_key()
    fleet.files |= {name: content for name, content in stranger.files.items() if name.endswith("director/2.root.json")}

    refused(device, RootMismatchError, document)


def test_a_device_does_not_change_its_fleet_by_itself(device: Device, fleet: Fleet, tmp_path: Path) -> None:
    device.check(fleet.direct(fleet.push("1.0")))
    stranger = Fleet()

    with pytest.raises(RootMismatchError):
        Device(device.folder, stranger).check(stranger.direct(stranger.push("1.0")))


def test_release_metadata_that_went_back_is_refused(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    old = dict(fleet.files)
    fleet.push("2.0")
    device.check(fleet.direct(target))
    document = fleet.direct(target)
    device.fetcher.files = old

    refused(device, ReplayedError, document)


def test_withheld_release_metadata_expires(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    device.check(fleet.direct(target))
    later = TODAY + timedelta(days=31)

    error = refused(device, ExpiredError, fleet.direct(target, now=later), now=later)

    assert "timestamp" in str(error)


def test_an_altered_snapshot_is_refused(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    name = f"{RELEASE_URL}2.snapshot.json"
    fleet.files[name] = fleet.files[name].replace(b'"version":2', b'"version":3')

    refused(device, SignatureError, document)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"[" * 100_000, b"x" * 6_000_000])
@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.root.json"])
def test_garbage_from_the_server_is_refused(device: Device, fleet: Fleet, name: str, content: bytes) -> None:
    document = fleet.direct(fleet.push("1.0"))
    fleet.files[f"{RELEASE_URL}{name}"] = content

    refused(device, MetadataFormatError, document)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"[" * 60_000, b"x" * 70_000, b'{"signed":1}']
)
def test_garbage_for_a_document_is_refused(device: Device, content: bytes) -> None:
    refused(device, MetadataFormatError, content)


def test_a_document_of_another_kind_is_refused(device: Device, fleet: Fleet) -> None:
    refused(device, MetadataFormatError, fleet.release.timestamp)


def test_a_release_without_facts_is_refused(device: Device, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    target = fleet.push("1.0")
    targets = json.loads(fleet.release.targets)
    del targets["signed"]["targets"][target.path]["custom"]["hardware"]
    signed = extend_targets(json.dumps(targets).encode(), fleet.signers.targets, fleet.now)
    fleet.release = renew(
        replace(fleet.release, targets=signed), fleet.signers.snapshot, fleet.signers.timestamp, fleet.now
    )
    fleet.serve()

    assert "hardware" in str(refused(device, MetadataFormatError, fleet.direct(target)))


def test_a_server_that_cannot_be_reached_changes_nothing(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))
    device.store.floors()
    before = device.state()
    device.fetcher.broken = True

    with pytest.raises(LinkError):
        device.check(document)

    assert device.state() == before
    device.fetcher.broken = False
    assert device.check(document) is not None


# Thresholds and rotation.


def test_fewer_signatures_than_the_threshold_are_refused(tmp_path: Path) -> None:
    fleet = Fleet(targets_threshold=2)
    device = Device(tmp_path / "trust", fleet)
    target = fleet.push("1.0")
    document = fleet.direct(target)
    targets = json.loads(fleet.release.targets)
    targets["signatures"] = [targets["signatures"][0]] * 2
    fleet.files[f"{RELEASE_URL}2.targets.json"] = json.dumps(targets).encode()

    with pytest.raises((SignatureError, MetadataFormatError)):
        device.check(document)
    fleet.serve()
    assert device.check(document) is not None


def test_three_rotations_at_once_are_followed(tmp_path: Path) -> None:
    fleet = Fleet(root_keys=3, root_threshold=2)
    device = Device(tmp_path / "trust", fleet)
    target = fleet.push("1.0")
    device.check(fleet.direct(target))
    for _ in range(3):
        fleet.rotate_release_root()
        fleet.rotate_online_key()
        fleet.serve_rotated()

    assert device.check(fleet.direct(target)) is not None

    assert json.loads((device.folder / "root.json").read_bytes())["signed"]["version"] == 4


def test_a_version_that_no_report_can_carry_is_refused(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")

    with pytest.raises(MetadataFormatError, match="can be reported"):
        device.check(fleet.direct(target, rev=MAX_COUNT + 1))


def test_the_highest_version_of_a_stolen_key_is_no_floor_once_that_key_is_revoked(device: Device, fleet: Fleet) -> None:
    # given a thief who had the online key, and let the device accept the last version there is
    target = fleet.push("1.0")
    device.check(fleet.direct(target, rev=MAX_COUNT))
    with pytest.raises(ReplayedError):
        device.check(fleet.direct(target, rev=7))

    # when
    stolen = fleet.rotate_online_key()

    # then the new key starts anew, and its own documents can no more be replayed than any
    assert device.check(fleet.direct(target, rev=7)) is not None
    with pytest.raises(ReplayedError):
        device.check(fleet.direct(target, rev=6))
    with pytest.raises(SignatureError):
        device.check(fleet.direct(target, rev=MAX_COUNT, key=stolen))


def test_a_revoked_online_key_stays_revoked_even_when_all_else_is_withheld(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    stolen = fleet.rotate_online_key()
    document = fleet.direct(target, key=stolen)
    with pytest.raises(SignatureError):
        device.check(document)
    device.fetcher.broken = True

    refused(device, SignatureError, document)


def test_a_revoked_release_key_stays_revoked_even_when_all_else_is_refused(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    fleet.rotate_release_root()
    fleet.files[f"{RELEASE_URL}2.root.json"] = fleet.release.root
    document = fleet.direct(target)
    with pytest.raises(SignatureError):  # the timestamp is still signed by the old key
        device.check(document)
    del fleet.files[f"{RELEASE_URL}2.root.json"]

    refused(device, SignatureError, document)


def test_an_expired_pinned_root_is_fine_when_a_newer_one_can_be_had(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    later = TODAY + timedelta(days=800)
    expired = fleet.direct(target, now=later)
    refused(device, ExpiredError, expired, now=later)
    fleet.now = later
    fleet.rotate_release_root()
    fleet.rotate_online_key()
    fleet.serve_rotated()

    assert device.check(fleet.direct(target), now=later) is not None


# Clocks.


@pytest.mark.parametrize("now", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)])
def test_a_clock_in_the_past_still_updates(device: Device, fleet: Fleet, now: datetime) -> None:
    assert device.check(fleet.direct(fleet.push("1.0")), now=now) is not None


def test_a_clock_in_the_past_does_not_bring_expired_documents_back(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    old = fleet.direct(target, rev=3)
    fleet.now += timedelta(days=100)
    fleet.renew()
    device.check(fleet.direct(target, rev=2), now=datetime(1970, 1, 1, tzinfo=UTC))

    refused(device, ExpiredError, old, now=datetime(1970, 1, 1, tzinfo=UTC))


def test_a_clock_far_ahead_is_named_and_does_no_lasting_harm(device: Device, fleet: Fleet) -> None:
    document = fleet.direct(fleet.push("1.0"))

    error = refused(device, ExpiredError, document, now=datetime(2038, 1, 19, tzinfo=UTC))

    assert "by the clock of this device it is 2038-01-19" in str(error)
    assert "set the clock" in str(error.hint)
    assert device.check(document) is not None


def test_the_time_floor_follows_the_signed_time(device: Device, fleet: Fleet) -> None:
    device.check(fleet.direct(fleet.push("1.0")))

    assert device.store.floors().time == TODAY


def test_a_stolen_online_key_cannot_push_the_clock_beyond_what_offline_keys_vouch_for(
    device: Device, fleet: Fleet
) -> None:
    target = fleet.push("1.0")
    device.check(fleet.direct(target, now=datetime(2099, 1, 1, tzinfo=UTC)))

    assert device.store.floors().time == TODAY + timedelta(days=365)


def test_a_document_without_a_release_does_not_move_the_clock(device: Device, fleet: Fleet) -> None:
    device.check(fleet.direct(None, now=datetime(2099, 1, 1, tzinfo=UTC)))

    assert device.store.floors().time == BUILD_DATE


# Damage.


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_bytes(b"\0" * 100)


@pytest.mark.parametrize("damage", [empty, remove, garble])
def test_any_one_damaged_file_neither_stops_updates_nor_lets_old_documents_in(
    tmp_path: Path, fleet: Fleet, damage: Callable[[Path], None]
) -> None:
    target = fleet.push("1.0")
    old = fleet.direct(target)
    fleet.rotate_online_key()
    whole = Device(tmp_path / "whole", fleet)
    whole.check(fleet.direct(target))
    names = [name for name in whole.state() if not (whole.folder / name).is_symlink() and name != "root.pinned"]
    assert len(names) == 8

    for number, name in enumerate(names):
        device = Device(tmp_path / str(number), fleet)
        device.check(fleet.direct(target))
        damage(device.folder / name)

        with pytest.raises(TrustError):
            device.check(old)
        assert device.check(fleet.direct(target)) is not None
        assert all(json.loads(path.read_bytes()) for path in device.folder.glob("*.json"))


def test_without_floors_nothing_is_accepted(device: Device, fleet: Fleet) -> None:
    target = fleet.push("1.0")
    device.check(fleet.direct(target))
    for name in ("floors.a", "floors.b"):
        (device.folder / name).write_bytes(b"")

    with pytest.raises(FloorsLostError):
        device.check(fleet.direct(target))

    for name in ("floors.a", "floors.b"):
        (device.folder / name).unlink()
    with pytest.raises(FloorsLostError):
        device.check(fleet.direct(target))


def test_a_damaged_copy_of_the_floors_is_healed(device: Device) -> None:
    device.store.raise_counter_floor("detector", 7)
    (device.folder / "floors.a").write_bytes(b"{}")

    assert device.store.floors().counters == {"detector": 7}
    assert (device.folder / "floors.a").read_bytes() == (device.folder / "floors.b").read_bytes()


def test_an_empty_repository_is_no_error_but_names_nothing(device: Device, fleet: Fleet) -> None:
    fleet.release = create_release(fleet.signers, fleet.now)

    refused(device, NotReleasedError, fleet.direct(DirectedTarget("a", 1, "0" * 64, "detector")))
