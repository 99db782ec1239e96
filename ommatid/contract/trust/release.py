"""The release repository as a device sees it: python-tuf's client, always from the pinned root, in a staging folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater

from ommatid.contract.trust.clock import format_time
from ommatid.contract.trust.errors import (
    ExpiredError,
    LengthOrHashError,
    MetadataFormatError,
    ReplayedError,
    RootMismatchError,
    SignatureError,
)
from ommatid.errors import LinkError, StorageError


class ReleaseClient:
    """One refresh of a TUF repository. Everything it accepts lies in the staging folder; nothing else changes."""

    def __init__(self, staging: Path, url: str, pinned_root: bytes, fetcher: FetcherInterface, now: datetime) -> None:
        """Begin with the staged copy of what was trusted before; `now` is what expiry is judged against.

        Raises:
            TrustError: The pinned root is not one.
        """
        self._staging = staging
        self._now = now
        self._fetcher = _LastAddress(fetcher)
        with self._in_our_words():
            # Never `bootstrap=None`: a kill between unlink and symlink of root.json would then leave no root at all.
            self._updater = Updater(str(staging), url, fetcher=self._fetcher, bootstrap=pinned_root)
        _set_reference_time(self._updater, now)

    def refresh(self) -> None:
        """Fetch and verify root, timestamp, snapshot and targets.

        Raises:
            TrustError: The subclass says why; documents verified before that one lie in the staging folder.
            LinkError: The server cannot be reached or does not have them.
        """
        with self._in_our_words():
            self._updater.refresh()

    def find(self, path: str) -> TargetFile | None:
        """Return what is signed of a target, delegations included, or None if nobody signed it.

        Raises:
            TrustError, LinkError: As `refresh`.
        """
        with self._in_our_words():
            return self._updater.get_targetinfo(path)

    @property
    def consistent_snapshot(self) -> bool:
        """Tell whether targets are fetched by digest-prefixed names."""
        root: Root = Metadata[Root].from_bytes((self._staging / "root.json").read_bytes()).signed
        return bool(root.consistent_snapshot)

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        what = "the release metadata"
        try:
            yield
        except exceptions.ExpiredMetadataError as error:
            raise ExpiredError(f"{what} ({error})", format_time(self._now)) from error
        except exceptions.BadVersionNumberError as error:
            raise ReplayedError(what, error) from error
        except exceptions.UnsignedMetadataError as error:
            kind = RootMismatchError if self._fetcher.address.endswith("root.json") else SignatureError
            raise kind(what, error) from error
        except exceptions.LengthOrHashMismatchError as error:
            raise LengthOrHashError(what, error) from error
        except exceptions.DownloadLengthMismatchError as error:
            raise MetadataFormatError(what, error) from error
        except exceptions.DownloadError as error:
            raise LinkError(f"{what}: {error}", hint="look whether the fleet server can be reached") from error
        except OSError as error:
            raise StorageError(f"{self._staging}: {error.strerror}", hint="check free space and permissions") from error
        except (exceptions.RepositoryError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MetadataFormatError(what, error) from error


def targets_expiry(content: bytes) -> datetime:
    """Return when an accepted targets document expires."""
    targets: Targets = Metadata[Targets].from_bytes(content).signed
    return targets.expires


def _set_reference_time(updater: Updater, now: datetime) -> None:
    """Judge expiry against `now`.

    python-tuf has no public way to give it a clock. A test fails when this private one moves.
    """
    trusted = updater._trusted_set  # noqa: SLF001 - the only clock python-tuf has
    if not isinstance(trusted.reference_time, datetime):
        raise TypeError("python-tuf has changed: its trusted set has no reference time")
    trusted.reference_time = now


class _LastAddress(FetcherInterface):
    """Passes on to another fetcher, and remembers what was asked for last: tuf's errors do not say it."""

    def __init__(self, fetcher: FetcherInterface) -> None:
        self._fetcher = fetcher
        self.address = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.address = url
        return self._fetcher.fetch(url)
