"""Change files so that a power cut leaves the old state or the new one, never a mix.

POSIX promises an order only through fsync: a file's bytes are safe after fsync of the file, its name after fsync of
the folder. Everything that must survive goes through a `Disk`, so that tests can record each step, stop after it,
and replay what a power cut might have left.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ommatid.errors import StorageError


class Disk(Protocol):
    """The few operations that durable state is made of. All raise StorageError."""

    def write(self, path: Path, content: bytes) -> None:
        """Create or truncate a file and write it; not durable before `sync`."""
        ...

    def append(self, path: Path, content: bytes) -> None:
        """Append to a file, creating it if need be; not durable before `sync`."""
        ...

    def sync(self, path: Path) -> None:
        """Make a file's bytes, or a folder's names, durable."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` by `source` in one step; the name is not durable before the folder's `sync`."""
        ...

    def symlink(self, link: Path, points_to: str) -> None:
        """Create a symbolic link; not durable before the folder's `sync`."""
        ...

    def mkdir(self, path: Path) -> None:
        """Create a folder and its parents; an existing one is fine."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file or a link; a missing one is fine."""
        ...

    def rmtree(self, path: Path) -> None:
        """Remove a folder with all in it, link by link; a missing one is fine."""
        ...


class RealDisk:
    """The disk of this machine."""

    def write(self, path: Path, content: bytes) -> None:  # noqa: D102
        with _storage_errors(path), path.open("wb") as file:
            file.write(content)

    def append(self, path: Path, content: bytes) -> None:  # noqa: D102
        with _storage_errors(path), path.open("ab") as file:
            file.write(content)

    def sync(self, path: Path) -> None:  # noqa: D102
        with _storage_errors(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:  # noqa: D102
        with _storage_errors(target):
            source.replace(target)

    def symlink(self, link: Path, points_to: str) -> None:  # noqa: D102
        with _storage_errors(link):
            link.symlink_to(points_to)

    def mkdir(self, path: Path) -> None:  # noqa: D102
        with _storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    def unlink(self, path: Path) -> None:  # noqa: D102
        with _storage_errors(path):
            path.unlink(missing_ok=True)

    def rmtree(self, path: Path) -> None:  # noqa: D102
        if path.is_symlink() or not path.is_dir():
            self.unlink(path)
            return
        with _storage_errors(path):
            for child in path.iterdir():
                self.rmtree(child)
            path.rmdir()


def replace_file(disk: Disk, path: Path, content: bytes) -> None:
    """Give `path` new content: after a power cut it holds the old or the new bytes."""
    partial = path.with_name(f".{path.name}.new")
    disk.write(partial, content)
    disk.sync(partial)
    disk.rename(partial, path)
    disk.sync(path.parent)


def replace_link(disk: Disk, link: Path, points_to: str) -> None:
    """Point `link` elsewhere: after a power cut it points to the old or the new place."""
    partial = link.with_name(f".{link.name}.new")
    disk.unlink(partial)
    disk.symlink(partial, points_to)
    disk.rename(partial, link)
    disk.sync(link.parent)


def sync_tree(disk: Disk, folder: Path) -> None:
    """Make a folder and all in it durable, leaves first."""
    for child in sorted(folder.iterdir()):
        if child.is_symlink():
            continue
        if child.is_dir():
            sync_tree(disk, child)
        else:
            disk.sync(child)
    disk.sync(folder)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}", hint="check free space and permissions of this disk"
        ) from error
