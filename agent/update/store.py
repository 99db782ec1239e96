"""Installed bundles by digest: `store/<sha256>/`, whole or not there at all.

A folder gets its name by one rename after all in it was fsynced, and loses it by one rename before anything in it is
removed. So whoever finds `store/<sha256>` finds every file of it, whatever power cut came before. The signed facts of
the release lie in it as `.release.json`, a name that no bundle can use.
"""

import logging
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from agent.update.release import Release
from ommatid.contract.bundle import unpack_bundle
from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import MANIFEST_NAME, Manifest, parse_manifest
from ommatid.disk import Disk, replace_file, sync_tree
from ommatid.errors import BundleError, StorageError

RELEASE_NAME: Final = ".release.json"
MARGIN_BYTES: Final = 16 * 1024 * 1024
"""What stays free after an install: for the record, the spool and the system's own logs."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class Store:
    """The folders `store/` and `downloads/` of one state directory."""

    def __init__(self, root: Path, disk: Disk, free_bytes: Callable[[Path], int] = _free_bytes) -> None:
        self.root = root
        self._disk = disk
        self._free_bytes = free_bytes
        self._store = root / "store"
        self._downloads = root / "downloads"

    def prepare(self) -> None:
        """Make the folders, and sweep away what a kill left half done.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        for folder in (self._store, self._downloads):
            if not folder.is_dir():
                self._disk.mkdir(folder)
                self._disk.sync(self.root)
        for entry in _entries(self._store):
            if not _DIGEST.fullmatch(entry.name):
                logger.info("store: swept %s", entry.name)
                self._disk.rmtree(entry)

    def folder(self, digest: str) -> Path:
        """Return where a bundle is installed, or would be."""
        return self._store / digest

    def part(self, digest: str) -> Path:
        """Return where a bundle is downloaded to."""
        return self._downloads / f"{digest}.part"

    def part_bytes(self, digest: str) -> int:
        """Return how much of a bundle is downloaded."""
        return _size(self.part(digest))

    def holds(self, digest: str) -> bool:
        """Tell whether a bundle is installed."""
        return self.folder(digest).is_dir()

    def release(self, digest: str) -> Release:
        """Return the signed facts of an installed bundle.

        Raises:
            BundleError: It is not installed, or its facts are damaged.
        """
        try:
            return Release.model_validate_json((self.folder(digest) / RELEASE_NAME).read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(f"{self.folder(digest)}: no release facts here: {error}") from error

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of an installed bundle.

        Raises:
            BundleError: It is not installed, or damaged.
        """
        path = self.folder(digest) / MANIFEST_NAME
        try:
            return parse_manifest(path.read_bytes())
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}") from error

    def is_whole(self, digest: str) -> bool:
        """Read an installed bundle again, every byte: flash memory forgets."""
        try:
            self.release(digest)
            manifest = self.manifest(digest)
            return all(sha256_file(self.folder(digest) / entry.path) == entry.sha256 for entry in manifest.files)
        except (OSError, BundleError) as error:
            logger.warning("store: %s: %s", digest[:12], error)
            return False

    def check_room(self, release: Release) -> None:
        """Refuse a bundle that would not fit: it lies here twice, as the download and unpacked.

        Raises:
            StorageError: There is too little free space; both figures are named.
        """
        part = self.part(release.sha256)
        needed = 2 * release.length + MARGIN_BYTES - _size(part)
        try:
            free = self._free_bytes(self.root)
        except OSError as error:
            raise StorageError(f"{self.root}: {error.strerror}", hint="check this disk") from error
        if free < needed:
            raise StorageError(
                f"{self.root}: {release.path} needs {_mib(needed)} MiB of free space; there are {_mib(free)} MiB",
                hint="make room on this disk, or move the state directory to a larger one",
            )

    def install(self, bundle: Path, release: Release) -> Path:
        """Unpack a verified bundle file, make it durable, and only then visible. Doing it again changes nothing.

        Raises:
            BundleError: It is not a bundle, or not that of this release.
            StorageError: The disk is full, read-only or broken; nothing is visible.
        """
        folder = self.folder(release.sha256)
        if folder.is_dir():
            return folder
        partial = self._store / f".{release.sha256}.new"
        self._disk.rmtree(partial)
        try:
            manifest = unpack_bundle(bundle, partial)
        except OSError as error:
            raise StorageError(f"{partial}: {error.strerror or error}", hint="check free space of this disk") from error
        if (manifest.name, manifest.version, manifest.target) != (release.model, release.version, release.target):
            self._disk.rmtree(partial)
            raise BundleError(
                f"{release.path}: the bundle says it is {manifest.bundle_name}; the signed release says otherwise"
            )
        replace_file(self._disk, partial / RELEASE_NAME, release.model_dump_json().encode())
        sync_tree(self._disk, partial)
        self._disk.rename(partial, folder)
        self._disk.sync(self._store)
        return folder

    def forget_download(self, digest: str) -> None:
        """Remove what was downloaded of one bundle."""
        self._disk.unlink(self.part(digest))

    def remove(self, digest: str) -> None:
        """Remove an installed bundle: its name first, durably, then its files."""
        folder = self.folder(digest)
        if not folder.is_dir():
            return
        gone = self._store / f".{digest}.gone"
        self._disk.rmtree(gone)
        self._disk.rename(folder, gone)
        self._disk.sync(self._store)
        self._disk.rmtree(gone)

    def collect(self, keep: Collection[str], keep_download: str | None) -> None:
        """Remove every bundle that is not in `keep`, and every download but one.

        Raises:
            StorageError: The disk is read-only or broken.
        """
        for entry in _entries(self._store):
            if entry.name not in keep and _DIGEST.fullmatch(entry.name):
                logger.info("store: removed %s", entry.name[:12])
                self.remove(entry.name)
        for entry in _entries(self._downloads):
            if entry.name != f"{keep_download}.part":
                self._disk.unlink(entry)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}", hint="check this disk") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // (1024 * 1024))
