"""Save a verified target of any TUF repository; what an operator does by hand with `edge-agent trust download`.

The agent fetches bundles with its own resumable downloader; this one fetches whole files.
"""

import contextlib
import os
from pathlib import Path
from urllib.parse import quote

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from ommatid.contract.trust.errors import LengthOrHashError
from ommatid.errors import LinkError


def save_target(
    entry: TargetFile, base_url: str, fetcher: FetcherInterface, folder: Path, *, digest_prefix: bool
) -> tuple[Path, bool]:
    """Return the verified file, and whether it had to be fetched: one that is right already is left alone.

    Raises:
        LengthOrHashError: The server has something else under this name; nothing is kept.
        LinkError: The server cannot be reached or does not have it.
    """
    path = folder / quote(entry.path, "")
    if _is_target(path, entry):
        return path, False
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".download.partial"
    try:
        _fetch(_address(entry, base_url, digest_prefix=digest_prefix), entry, fetcher, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path, True


def _fetch(url: str, entry: TargetFile, fetcher: FetcherInterface, partial: Path) -> None:
    received = 0
    try:
        with partial.open("w+b") as file:
            for chunk in fetcher.fetch(url):
                received += len(chunk)
                if received > entry.length:
                    raise LengthOrHashError(entry.path, f"more than the signed {entry.length} bytes")
                file.write(chunk)
            file.seek(0)
            entry.verify_length_and_hashes(file)
            os.fsync(file.fileno())
    except exceptions.LengthOrHashMismatchError as error:
        raise LengthOrHashError(entry.path, error) from error
    except exceptions.DownloadError as error:
        raise LinkError(f"{entry.path}: {error}", hint="check --target-base-url, and that the server runs") from error


def _is_target(path: Path, entry: TargetFile) -> bool:
    with contextlib.suppress(OSError, exceptions.LengthOrHashMismatchError), path.open("rb") as file:
        entry.verify_length_and_hashes(file)
        return True
    return False


def _address(entry: TargetFile, base_url: str, *, digest_prefix: bool) -> str:
    """Return where a target lies: with consistent snapshots its name begins with its first digest."""
    folder, slash, name = entry.path.rpartition("/")
    if digest_prefix:
        name = f"{next(iter(entry.hashes.values()))}.{name}"
    return f"{base_url.rstrip('/')}/{folder}{slash}{name}"
