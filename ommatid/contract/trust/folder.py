"""A folder of trusted metadata in which everything changes at once, or not at all.

    D/root.json, timestamp.json, …   -> current/…       what an operator reads
    D/current                        -> generations/7   the one link that is swapped
    D/generations/7/                 root.json, …, root_history/N.root.json
    D/root.pinned                    the root that all trust here starts from
    D/.staging/                      where python-tuf writes; wiped before each use

python-tuf changes its files one by one, before the application can say no, and without fsync. So it works in the
staging copy; what is accepted is then written anew, fsynced, and becomes current by one rename.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ommatid.contract.trust.errors import RootMismatchError
from ommatid.contract.trust.roots import pinned_root
from ommatid.disk import Disk, replace_file, replace_link
from ommatid.errors import StorageError

CURRENT: Final = "current"
GENERATIONS: Final = "generations"
HISTORY: Final = "root_history"
PINNED: Final = "root.pinned"
STAGING: Final = ".staging"
LOCK: Final = ".lock"


class MetadataFolder:
    """The folder. One process at a time works in it: see `locked`."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, and sweep away what an interrupted one left behind."""
        if not self.path.is_dir():
            self._disk.mkdir(self.path)
            self._disk.sync(self.path.parent)
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}", hint="check free space and permissions") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._recover()
            yield
        finally:
            os.close(descriptor)

    @property
    def pinned(self) -> bytes | None:
        """Return the root that trust starts from, or None before `pin`."""
        path = self.path / PINNED
        return path.read_bytes() if path.is_file() else None

    def pin(self, root: bytes) -> None:
        """Start all trust from `root`, for ever.

        Raises:
            RootMismatchError: It starts from another root already, or this one is not signed by its own keys.
            MetadataFormatError: It is not a root.
        """
        version = pinned_root(root, "the pinned root").version
        if (pinned := self.pinned) is None:
            replace_file(self._disk, self.path / PINNED, root)
        elif pinned != root:
            raise RootMismatchError("the pinned root", f"{self.path} was begun with another one")
        if not self.read():
            self._write_generation({"root.json": root, f"{HISTORY}/{version}.root.json": root})

    def read(self) -> dict[str, bytes]:
        """Return the current documents by name; older roots are `root_history/N.root.json`."""
        return _read_documents(self.path / CURRENT)

    def stage(self) -> Path:
        """Return the staging folder with a fresh copy of the current documents in it."""
        staging = self.path / STAGING
        try:
            shutil.rmtree(staging, ignore_errors=True)
            (staging / HISTORY).mkdir(parents=True)
            for name, content in self.read().items():
                (staging / name).write_bytes(content)
        except OSError as error:
            raise StorageError(f"{staging}: {error.strerror}", hint="check free space and permissions") from error
        return staging

    def commit(self, *, only_roots: bool = False) -> None:
        """Make what was verified in the staging folder current, durably and in one step.

        Args:
            only_roots: Take over newer roots alone. Offline keys sign them, so they are kept even when all else is
                refused: a key that was revoked stays revoked.
        """
        old, new = self.read(), _read_documents(self.path / STAGING)
        if only_roots:
            new = old | {name: new[name] for name in new if name == "root.json" or name.startswith(HISTORY)}
        if new != old and "root.json" in new:
            self._write_generation(new)
        shutil.rmtree(self.path / STAGING, ignore_errors=True)

    def _write_generation(self, documents: Mapping[str, bytes]) -> None:
        number = 1 + max((int(path.name) for path in self._generations() if path.name.isdigit()), default=0)
        generation = self.path / GENERATIONS / str(number)
        self._disk.mkdir(generation / HISTORY)
        for name, content in sorted(documents.items()):
            self._disk.write(generation / name, content)
            self._disk.sync(generation / name)
        for folder in (generation / HISTORY, generation, self.path / GENERATIONS, self.path):
            self._disk.sync(folder)
        replace_link(self._disk, self.path / CURRENT, f"{GENERATIONS}/{number}")
        self._link_documents()
        self._sweep()

    def _recover(self) -> None:
        shutil.rmtree(self.path / STAGING, ignore_errors=True)
        self._sweep()
        self._link_documents()

    def _sweep(self) -> None:
        """Remove generations that are not current: older ones, and those that a power cut left half-written."""
        current = self.path / CURRENT
        keep = current.resolve().name if current.is_symlink() else ""
        for generation in self._generations():
            if generation.name != keep:
                self._disk.rmtree(generation)

    def _link_documents(self) -> None:
        current = self.path / CURRENT
        for document in sorted(current.glob("*.json")):
            link, points_to = self.path / document.name, f"{CURRENT}/{document.name}"
            if not link.is_symlink() or str(link.readlink()) != points_to:
                replace_link(self._disk, link, points_to)

    def _generations(self) -> list[Path]:
        folder = self.path / GENERATIONS
        return sorted(folder.iterdir()) if folder.is_dir() else []


def _read_documents(folder: Path) -> dict[str, bytes]:
    """Return the documents in a folder, without what python-tuf may have left of an interrupted write."""
    if not folder.is_dir():
        return {}
    found = [*folder.glob("*.json"), *(folder / HISTORY).glob("*.root.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}
