"""The director as a device sees it: a chain of roots, and one signed document for this device.

The document is TUF targets metadata with three more signed fields: `device`, `tenant` and `issued`. It has no snapshot
or timestamp: its own version and expiry say that it is new. It comes as a retained MQTT message or over HTTP.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api import exceptions
from tuf.api.metadata import Root, TargetFile, Targets
from tuf.ngclient import FetcherInterface

from ommatid.contract.digests import sha256_bytes
from ommatid.contract.messages import MAX_COUNT
from ommatid.contract.trust.clock import format_time, parse_time
from ommatid.contract.trust.errors import (
    ExpiredError,
    MetadataFormatError,
    ReplayedError,
    SignatureError,
    WrongDeviceError,
)
from ommatid.contract.trust.floors import Floors
from ommatid.contract.trust.roots import next_root, parse, pinned_root
from ommatid.disk import Disk, replace_file

MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_ROOT_BYTES: Final = 512_000
MAX_ROTATIONS: Final = 256
_WHAT: Final = "the director document"
_ROOT: Final = "the director's root"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DirectorDocument:
    """What the director wants one device to run; genuine, but not yet matched with the release side."""

    version: int
    sha256: str
    issued: datetime
    target: TargetFile | None
    keys: tuple[str, ...] = ()


class DirectorRoots:
    """The director's roots from the pinned one on; newer ones are kept, so a revoked key stays revoked."""

    def __init__(self, folder: Path, disk: Disk, pinned: bytes, url: str, fetcher: FetcherInterface) -> None:
        self._folder = folder
        self._disk = disk
        self._pinned = pinned
        self._url = url if url.endswith("/") else f"{url}/"
        self._fetcher = fetcher

    def newest(self) -> Root:
        """Return the newest root, after asking the server for newer ones.

        A server that cannot be reached is no error: the roots known here decide.

        Raises:
            RootMismatchError: The server has a newer root that this one does not lead to.
            MetadataFormatError: The pinned root, or what the server has, is not a root.
        """
        root = pinned_root(self._pinned, _ROOT)
        for _ in range(MAX_ROTATIONS):
            path = self._folder / f"{root.version + 1}.root.json"
            newer = self._kept(root, path) or self._fetched(root, path)
            if newer is None:
                break
            root = newer
        return root

    def _kept(self, root: Root, path: Path) -> Root | None:
        try:
            return next_root(root, path.read_bytes(), _ROOT)
        except FileNotFoundError:
            return None
        except (OSError, MetadataFormatError, SignatureError) as error:
            logger.warning("%s: ignored: %s", path, error)
            return None

    def _fetched(self, root: Root, path: Path) -> Root | None:
        try:
            content = self._fetcher.download_bytes(f"{self._url}{path.name}", MAX_ROOT_BYTES)
        except exceptions.DownloadLengthMismatchError as error:
            raise MetadataFormatError(_ROOT, error) from error
        except exceptions.DownloadHTTPError as error:
            if error.status_code not in {403, 404}:
                logger.warning("%s: %s", _ROOT, error)
            return None
        except exceptions.DownloadError as error:
            logger.warning("%s: %s", _ROOT, error)
            return None
        newer = next_root(root, content, _ROOT)
        self._disk.mkdir(self._folder)
        self._disk.sync(self._folder.parent)
        replace_file(self._disk, path, content)
        return newer


def verify_document(
    content: bytes, root: Root, *, device: str, tenant: str, now: datetime, floors: Floors
) -> DirectorDocument:
    """Decide whether a document is the director's, for this device, and no older than the last one.

    Args:
        content: The bytes as they came.
        root: The director's newest root.
        device: This device's id.
        tenant: This device's tenant.
        now: The reference time.
        floors: What was accepted before; the very same bytes may come again.

    Raises:
        TrustError: The subclass says why not.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise MetadataFormatError(_WHAT, f"{len(content)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    metadata, signed_bytes = parse(content, Targets, _WHAT)
    try:
        root.verify_delegate(Targets.type, signed_bytes, metadata.signatures)
    except exceptions.UnsignedMetadataError as error:
        raise SignatureError(_WHAT, error) from error
    document = _document(metadata.signed, sha256_bytes(content), tuple(sorted(root.roles[Targets.type].keyids)))
    meant = (metadata.signed.unrecognized_fields.get("tenant"), metadata.signed.unrecognized_fields.get("device"))
    if meant != (tenant, device):
        raise WrongDeviceError(f"{meant[0]}/{meant[1]}", f"{tenant}/{device}")
    _check_version(document, floors)
    if root.is_expired(now):
        raise ExpiredError(_ROOT, format_time(now))
    if metadata.signed.is_expired(now):
        raise ExpiredError(f"{_WHAT} (issued {format_time(document.issued)})", format_time(now))
    return document


def _check_version(document: DirectorDocument, floors: Floors) -> None:
    if document.version > MAX_COUNT:
        raise MetadataFormatError(_WHAT, f"version {document.version}; at most {MAX_COUNT} can be reported")
    if floors.director_keys and not set(floors.director_keys) & set(document.keys):
        return  # every key that could have signed the accepted document is revoked, and with it its version
    if document.version < floors.director_version:
        raise ReplayedError(_WHAT, f"version {document.version}, but {floors.director_version} was accepted")
    if document.version == floors.director_version and document.sha256 != floors.director_sha256:
        raise ReplayedError(_WHAT, f"another document of version {document.version} was accepted")


def _document(signed: Targets, sha256: str, keys: tuple[str, ...]) -> DirectorDocument:
    if signed.delegations is not None:
        raise MetadataFormatError(_WHAT, "a director does not delegate")
    if len(signed.targets) > 1:
        raise MetadataFormatError(_WHAT, f"it names {len(signed.targets)} bundles; this agent runs one")
    try:
        issued = parse_time(signed.unrecognized_fields["issued"])
    except (KeyError, TypeError, ValueError) as error:
        raise MetadataFormatError(_WHAT, f"`issued` is missing or no time: {error}") from error
    return DirectorDocument(signed.version, sha256, issued, next(iter(signed.targets.values()), None), keys)
