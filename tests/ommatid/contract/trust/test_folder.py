from pathlib import Path
from threading import Event, Thread

import pytest

from ommatid.contract.trust.errors import MetadataFormatError, RootMismatchError
from ommatid.contract.trust.folder import MetadataFolder
from ommatid.disk import RealDisk
from tests.support.repository import Fleet

FLEET = Fleet()


@pytest.fixture
def folder(tmp_path: Path) -> MetadataFolder:
    folder = MetadataFolder(tmp_path / "trust", RealDisk())
    with folder.locked():
        folder.pin(FLEET.pinned_release_root)
    return folder


def test_a_pinned_root_is_current_at_once(folder: MetadataFolder) -> None:
    assert folder.pinned == FLEET.pinned_release_root
    assert (folder.path / "root.json").read_bytes() == FLEET.pinned_release_root


def test_a_pin_is_for_ever(folder: MetadataFolder) -> None:
    with pytest.raises(RootMismatchError):
        folder.pin(Fleet().pinned_release_root)
    with pytest.raises(MetadataFormatError):
        folder.pin(b"{}")

    assert folder.pinned == FLEET.pinned_release_root


def test_what_is_staged_is_not_current_before_the_commit(folder: MetadataFolder) -> None:
    (folder.stage() / "timestamp.json").write_bytes(b"{}")
    assert "timestamp.json" not in folder.read()

    folder.commit()

    assert (folder.path / "timestamp.json").read_bytes() == b"{}"


def test_a_commit_of_roots_alone_takes_nothing_else(folder: MetadataFolder) -> None:
    staging = folder.stage()
    (staging / "timestamp.json").write_bytes(b"{}")
    (staging / "root_history" / "2.root.json").write_bytes(b"newer")

    folder.commit(only_roots=True)

    assert set(folder.read()) == {"root.json", "root_history/1.root.json", "root_history/2.root.json"}


def test_leftovers_of_an_interrupted_process_are_swept(folder: MetadataFolder) -> None:
    (folder.stage() / "tmpabc").write_bytes(b"half")
    (folder.path / "generations" / "99" / "root_history").mkdir(parents=True)
    before = folder.read()

    with folder.locked():
        assert not (folder.path / ".staging").exists()
        assert not (folder.path / "generations" / "99").exists()
        assert folder.read() == before


def test_one_at_a_time_works_in_a_folder(folder: MetadataFolder) -> None:
    entered, order = Event(), list[str]()

    def second() -> None:
        with MetadataFolder(folder.path, RealDisk()).locked():
            order.append("second")

    thread = Thread(target=second)
    with folder.locked():
        thread.start()
        entered.wait(0.05)
        order.append("first")
    thread.join(10)

    assert order == ["first", "second"]
