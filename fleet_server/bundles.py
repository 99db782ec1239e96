"""Bundles on the server's disk, each under its own sha256: content that never changes."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fleet_server.errors import NotFoundError, TooLargeError
from ommatid.disk import RealDisk
from ommatid.errors import BadInputError, DigestMismatchError, StorageError

SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Upload:
    """A bundle that is arriving; it gets its name only when it is whole and true."""

    def __init__(self, partial: Path, sha256: str, max_bytes: int) -> None:
        self._partial = partial
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._size = 0
        try:
            self._file = partial.open("xb")
        except OSError as error:
            raise StorageError(f"the bundle cannot be stored: {error.strerror}", hint="free some space") from error

    def write(self, chunk: bytes) -> None:
        """Add the next bytes.

        Raises:
            TooLargeError: There are more than this server takes.
            StorageError: The disk is full.
        """
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise TooLargeError(
                f"the bundle has more than {self._max_bytes} bytes",
                hint="max_bundle_bytes in fleet.toml sets the limit",
            )
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise StorageError(f"the bundle cannot be stored: {error.strerror}", hint="free some space") from error

    def finish(self, target: Path) -> None:
        """Check the digest, and make the bundle durable and visible.

        Raises:
            DigestMismatchError: These are not the bytes that were announced.
            StorageError: The disk is full.
        """
        if self._digest.hexdigest() != self._sha256:
            raise DigestMismatchError("the uploaded bundle", self._sha256, self._digest.hexdigest())
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"the bundle cannot be stored: {error.strerror}", hint="free some space") from error
        disk = RealDisk()
        disk.rename(self._partial, target)
        disk.sync(target.parent)

    def close(self) -> None:
        """Forget what did not become a bundle."""
        self._partial.unlink(missing_ok=True)
        with suppress(OSError):  # what a full disk did not take, it does not take now either
            self._file.close()


class BundleStore:
    """The folder of bundles."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def clean(self) -> None:
        """Remove what a server that died left half-received."""
        for partial in self._folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where a bundle lies.

        Raises:
            NotFoundError: There is none.
        """
        path = self._named(sha256)
        if not path.is_file():
            raise NotFoundError(f"there is no bundle {sha256}", hint="`fleet push` uploads it")
        return path

    @contextmanager
    def receive(self, sha256: str) -> Iterator[Upload]:
        """Take a bundle in; whatever happens, nothing half-written stays."""
        self._named(sha256)
        upload = Upload(self._folder / f".{sha256}.{secrets.token_hex(4)}.partial", sha256, self._max_bytes)
        try:
            yield upload
        finally:
            upload.close()

    def finish(self, upload: Upload, sha256: str) -> None:
        """Give a received bundle its name; see `Upload.finish` for what it raises."""
        upload.finish(self._named(sha256))

    def _named(self, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise BadInputError(f"{sha256[:80]!r} is not a sha256", hint="64 hexadecimal digits, lower case")
        return self._folder / sha256
