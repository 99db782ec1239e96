"""Bundles on the server's disk."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet_server.bundles import BundleStore
from fleet_server.errors import NotFoundError, TooLargeError
from ommatid.contract.digests import sha256_bytes
from ommatid.errors import BadInputError, DigestMismatchError, StorageError

CONTENT = b"bundle" * 1000


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path, max_bytes=10_000)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Make the system refuse larger files: an error of the disk, as a full one gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_arrives_whole_is_there(store: BundleStore) -> None:
    digest = sha256_bytes(CONTENT)

    with store.receive(digest) as upload:
        upload.write(CONTENT[:100])
        upload.write(CONTENT[100:])
        store.finish(upload, digest)

    assert store.path(digest).read_bytes() == CONTENT


def test_what_is_cut_off_leaves_nothing(store: BundleStore, tmp_path: Path) -> None:
    def connection_lost() -> None:
        with store.receive(sha256_bytes(CONTENT)) as upload:
            upload.write(CONTENT[:100])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        connection_lost()

    assert list(tmp_path.iterdir()) == []


def test_what_is_not_what_was_promised_leaves_nothing(store: BundleStore, tmp_path: Path) -> None:
    digest = sha256_bytes(b"something else")

    with store.receive(digest) as upload:
        upload.write(CONTENT)
        with pytest.raises(DigestMismatchError):
            store.finish(upload, digest)

    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_is_refused_while_it_arrives(store: BundleStore, tmp_path: Path) -> None:
    with store.receive("0" * 64) as upload:
        upload.write(CONTENT)
        with pytest.raises(TooLargeError, match="10000 bytes"):
            upload.write(CONTENT)

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_is_one_clear_error(store: BundleStore, tmp_path: Path) -> None:
    digest = sha256_bytes(CONTENT)

    def write_and_finish() -> None:
        with store.receive(digest) as upload:
            upload.write(CONTENT)
            store.finish(upload, digest)

    with files_no_larger_than(100), pytest.raises(StorageError, match="stored"):
        write_and_finish()

    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_server_left_is_swept_away(store: BundleStore, tmp_path: Path) -> None:
    (tmp_path / f".{'0' * 64}.1234.partial").write_bytes(b"half")
    (tmp_path / ("1" * 64)).write_bytes(b"whole")

    store.clean()

    assert [path.name for path in tmp_path.iterdir()] == ["1" * 64]


@pytest.mark.parametrize("name", ["../fleet.db", "", "0" * 63, "G" * 64, "0" * 64 + "\n"])
def test_only_a_digest_is_a_name(store: BundleStore, name: str) -> None:
    with pytest.raises(BadInputError):
        store.path(name)


def test_what_is_not_there_is_not_found(store: BundleStore) -> None:
    with pytest.raises(NotFoundError):
        store.path("0" * 64)
