"""Sign a bundle with the release keys, and bring it to the server."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from fleet_server.client import FleetClient
from fleet_server.keyring import Keyring
from fleet_server.signing.errors import NotSignedError, VersionBackError
from fleet_server.signing.release import add_target, check_targets, extend_targets, next_counter
from ommatid.contract.bundle import verify_bundle
from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import Manifest
from ommatid.contract.trust.facts import ReleaseFacts
from ommatid.errors import LinkError


@dataclass(frozen=True, slots=True)
class Pushed:
    """A release, as the server has it now."""

    model: str
    version: str
    target: str
    path: str
    digest: str
    size_bytes: int
    hardware: tuple[str, ...]
    release_counter: int
    uploaded: bool
    """False when the server had the bundle already."""


def push(
    client: FleetClient,
    bundle: Path,
    keys: Keyring,
    passphrase: bytes | None,
    now: datetime,
    sent: Callable[[int], None],
) -> Pushed:
    """Verify, sign, upload and publish a bundle; pushing the same one twice changes nothing.

    Raises:
        BundleError: It is damaged.
        PublishError: The server's releases are not of these keys, or the release cannot follow them.
        LinkError: The server cannot be reached, or refuses.
    """
    manifest = verify_bundle(bundle)
    signer = keys.targets_signer(passphrase)
    digest, size = sha256_file(bundle), bundle.stat().st_size
    path = f"{manifest.name}/{manifest.bundle_name}"
    root, current = keys.read_release_root(), _current_targets(client)
    known = _trusted(root, current, keys.read_last_targets()).targets.get(path)
    present = known is not None and known.hashes.get("sha256") == digest
    document = current
    if not present:
        document = _with_release(current, signer, path, digest, size, manifest, now)
        check_targets(root, current, document, now)
    uploaded = not client.has_bundle(digest)
    if uploaded:
        client.upload(bundle, digest, sent)
    if not present:
        client.publish(document)
        keys.remember(document)
    entry = Metadata[Targets].from_bytes(document).signed.targets[path]
    return _pushed(manifest, entry, digest, uploaded=uploaded)


def extend(client: FleetClient, keys: Keyring, passphrase: bytes | None, now: datetime) -> datetime:
    """Sign the same releases again, so that they expire later; return when.

    Raises:
        PublishError: The server's releases are not of these keys.
        LinkError: The server cannot be reached, or refuses.
    """
    signer = keys.targets_signer(passphrase)
    current = _current_targets(client)
    _trusted(keys.read_release_root(), current, keys.read_last_targets())
    document = extend_targets(current, [signer], now)
    client.publish(document)
    keys.remember(document)
    return Metadata[Targets].from_bytes(document).signed.expires


def _current_targets(client: FleetClient) -> bytes:
    """Return the releases document that the server has now; nothing of it is trusted yet."""
    try:
        timestamp = Metadata[Timestamp].from_bytes(client.release_document("timestamp.json")).signed
        name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        snapshot = Metadata[Snapshot].from_bytes(client.release_document(name)).signed
        return client.release_document(f"{snapshot.meta['targets.json'].version}.targets.json")
    except (DeserializationError, KeyError) as error:
        raise LinkError(f"the server's release documents cannot be read: {error}") from error


def _trusted(root: bytes, current: bytes, last: bytes | None) -> Targets:
    """Check that our own keys signed what the server shows, and that it does not show an old state."""
    try:
        metadata = Metadata[Targets].from_bytes(current)
        signed_root: Root = Metadata[Root].from_bytes(root).signed
        signed_root.verify_delegate("targets", metadata.signed_bytes, metadata.signatures)
    except (DeserializationError, UnsignedMetadataError) as error:
        raise NotSignedError(
            f"the releases on the server are not signed by these keys ({error})",
            hint="push with the keys that `fleet init` made for this server",
        ) from error
    if last is not None:
        floor = Metadata[Targets].from_bytes(last).signed.version
        if metadata.signed.version < floor:
            raise VersionBackError(
                f"the server shows releases document {metadata.signed.version}, but {floor} was pushed from here",
                hint="the server was restored from an old backup, or broken into: look before you push",
            )
    return metadata.signed


def _with_release(
    current: bytes, signer: Signer, path: str, digest: str, size: int, manifest: Manifest, now: datetime
) -> bytes:
    facts = ReleaseFacts(
        model=manifest.name,
        version=manifest.version,
        target=manifest.target,
        hardware=manifest.compatible.arch,
        release_counter=next_counter(current, manifest.name),
        minimum_agent=manifest.compatible.minimum_agent,
    )
    return add_target(current, [signer], path, length=size, sha256=digest, facts=facts, now=now)


def _pushed(manifest: Manifest, entry: TargetFile, digest: str, *, uploaded: bool) -> Pushed:
    facts = entry.custom or {}
    return Pushed(
        model=manifest.name,
        version=manifest.version,
        target=manifest.target,
        path=entry.path,
        digest=digest,
        size_bytes=entry.length,
        hardware=manifest.compatible.arch,
        release_counter=int(facts["release_counter"]),
        uploaded=uploaded,
    )
