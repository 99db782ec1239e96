from pathlib import Path

import pytest

from agent.update.record import KEPT_FAILURES, Record, RecordFile
from agent.update.slots import SlotLinks
from agent.update.store import RELEASE_NAME, Store
from ommatid.contract.messages import UpdateState
from ommatid.errors import BundleError, StorageError
from tests.support.disks import CrashingDisk, PowerCut
from tests.support.updating import FastDisk, Signed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, FastDisk())
    store.prepare()
    return store


def test_an_installed_bundle_carries_its_signed_facts(store: Store, bundles: Path, v1: Signed) -> None:
    folder = store.install(bundles / v1.sha256, v1.release)

    assert folder == store.folder(v1.sha256)
    assert (folder / RELEASE_NAME).is_file()
    assert store.release(v1.sha256) == v1.release
    assert store.manifest(v1.sha256).version == "1"
    assert store.is_whole(v1.sha256)
    assert store.install(bundles / v1.sha256, v1.release) == folder


@pytest.mark.parametrize("damage", ["flip", "remove", "facts"])
def test_a_damaged_bundle_is_noticed(store: Store, bundles: Path, v1: Signed, damage: str) -> None:
    folder = store.install(bundles / v1.sha256, v1.release)
    if damage == "flip":
        (folder / "labels.txt").write_bytes(b"cat\ndog!")
    else:
        (folder / ("model.onnx" if damage == "remove" else RELEASE_NAME)).unlink()

    assert not store.is_whole(v1.sha256)


def test_a_bundle_that_is_not_what_its_release_says_is_refused(
    store: Store, bundles: Path, v1: Signed, v2: Signed
) -> None:
    with pytest.raises(BundleError, match="the signed release says otherwise"):
        store.install(bundles / v1.sha256, v2.release)

    assert not store.holds(v2.sha256)
    assert list((store.root / "store").iterdir()) == []


def test_whatever_has_a_digest_for_its_name_is_whole_even_when_removing_is_cut_off(
    tmp_path: Path, bundles: Path, v1: Signed
) -> None:
    point = 0
    while True:
        root = tmp_path / str(point)
        store = Store(root, FastDisk())
        store.prepare()
        store.install(bundles / v1.sha256, v1.release)
        try:
            Store(root, CrashingDisk(FastDisk(), point)).remove(v1.sha256)
        except PowerCut:
            assert not store.holds(v1.sha256) or store.is_whole(v1.sha256)
            point += 1
        else:
            break
    assert point >= 4
    assert list((root / "store").iterdir()) == []


def test_leftovers_are_swept(store: Store, bundles: Path, v1: Signed, v2: Signed) -> None:
    store.install(bundles / v1.sha256, v1.release)
    (store.root / "store" / f".{v2.sha256}.new").mkdir()
    (store.root / "store" / f".{v2.sha256}.new" / "half").write_bytes(b"x")

    store.prepare()
    store.collect(keep={v1.sha256}, keep_download=None)

    assert [path.name for path in (store.root / "store").iterdir()] == [v1.sha256]


def test_too_little_room_is_said_with_both_figures(tmp_path: Path, v1: Signed) -> None:
    store = Store(tmp_path, FastDisk(), free_bytes=lambda _folder: 5 * 1024 * 1024)
    store.prepare()

    with pytest.raises(StorageError, match=r"needs 17 MiB of free space; there are 5 MiB") as caught:
        store.check_room(v1.release)
    assert caught.value.hint is not None


def test_a_current_that_leads_nowhere_is_mended_from_previous(
    store: Store, bundles: Path, v1: Signed, v2: Signed
) -> None:
    slots = SlotLinks(store.root, FastDisk())
    slots.prepare()
    for signed in (v1, v2):
        store.install(bundles / signed.sha256, signed.release)
        slots.stand_by("detector", signed.sha256)
        slots.promote("detector", signed.sha256, slots.of("detector").current)
    assert (slots.running, slots.of("detector").previous) == (v2.sha256, v1.sha256)

    FastDisk().rmtree(store.folder(v2.sha256))
    assert slots.of("detector").current is None
    slots.prepare()

    assert slots.running == v1.sha256
    assert (store.root / "models" / "active" / "current").resolve() == store.folder(v1.sha256)


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path, v1: Signed) -> None:
    file = RecordFile(tmp_path / "update.json", FastDisk())
    record = Record(failed={"a" * 64: 3}).offered(v1.release, 7, None).tried(UpdateState.TRIAL).measured({"x_ms": 1.5})

    file.save(record)

    assert file.load() == (record, None)


def test_failures_are_remembered_within_a_bound(v1: Signed) -> None:
    record = Record(failed={f"{number:064x}": number for number in range(KEPT_FAILURES)})
    record = record.offered(v1.release, 7, None).blamed("E", "why", remember=True, retriable=False)

    failed = record.ended(UpdateState.REFUSED).failed

    assert len(failed) == KEPT_FAILURES
    assert failed[v1.sha256] == 1
    assert f"{0:064x}" not in failed
