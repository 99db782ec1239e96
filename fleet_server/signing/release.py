"""The release repository: what exists, signed offline; and the server's daily proof that it is fresh.

`add_target` runs where the release is pushed from, with the targets keys. `publish` and `renew` run on the server,
which holds the snapshot and timestamp keys alone: it can neither add a release nor change one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from fleet_server.signing.errors import (
    CounterBackError,
    NotSignedError,
    PublishError,
    TargetChangedError,
    VersionBackError,
)
from fleet_server.signing.roots import RoleKeys, create_root, expires
from ommatid.contract.trust.facts import ReleaseFacts

TARGETS_DAYS: Final = 365
ONLINE_DAYS: Final = 30
MAX_TARGETS_BYTES: Final = 5_000_000  # what a device reads at most (tuf's own limit)


@dataclass(frozen=True, slots=True)
class ReleaseSigners:
    """All keys of a release repository, as `fleet init` has them once."""

    root: Sequence[Signer]
    targets: Sequence[Signer]
    snapshot: Signer
    timestamp: Signer
    root_threshold: int = 1
    targets_threshold: int = 1

    def roles(self) -> dict[str, RoleKeys]:
        """Return what the root document says of these keys."""
        return {
            "root": RoleKeys([signer.public_key for signer in self.root], self.root_threshold),
            "targets": RoleKeys([signer.public_key for signer in self.targets], self.targets_threshold),
            "snapshot": RoleKeys([self.snapshot.public_key]),
            "timestamp": RoleKeys([self.timestamp.public_key]),
        }


@dataclass(frozen=True, slots=True)
class Repository:
    """The newest document of each role, as raw signed bytes."""

    root: bytes
    targets: bytes
    snapshot: bytes
    timestamp: bytes

    def files(self) -> dict[str, bytes]:
        """Return the documents by the names that devices fetch them by."""
        return {
            f"{_version(self.root)}.root.json": self.root,
            f"{_version(self.targets)}.targets.json": self.targets,
            f"{_version(self.snapshot)}.snapshot.json": self.snapshot,
            "timestamp.json": self.timestamp,
        }


def create_release(signers: ReleaseSigners, now: datetime) -> Repository:
    """Return a new, empty release repository."""
    root = create_root(signers.roles(), signers.root, now)
    targets = _sign(Targets(1, None, expires(now, TARGETS_DAYS)), signers.targets)
    snapshot = Snapshot(1, None, expires(now, ONLINE_DAYS), {"targets.json": MetaFile(1)})
    timestamp = Timestamp(1, None, expires(now, ONLINE_DAYS), MetaFile(1))
    return Repository(root, targets, _sign(snapshot, [signers.snapshot]), _sign(timestamp, [signers.timestamp]))


def next_counter(targets: bytes, model: str) -> int:
    """Return the release counter of the next release of a model: the highest so far, plus one."""
    return 1 + max(_counters(_read(targets, Targets)).get(model, [0]))


def add_target(
    targets: bytes,
    signers: Sequence[Signer],
    path: str,
    *,
    length: int,
    sha256: str,
    facts: ReleaseFacts,
    now: datetime,
) -> bytes:
    """Return the next targets document, with one more release in it.

    Fewer signers than the threshold is no error here: the others add theirs with `add_signature`.

    Raises:
        TargetChangedError: There is a release of this path with other content.
    """
    signed = _read(targets, Targets)
    entry = TargetFile(length, {"sha256": sha256}, path, {"custom": facts.model_dump(mode="json")})
    if signed.targets.get(path, entry) != entry:
        raise TargetChangedError(
            f"{path} is already released, with other content or facts",
            hint="a release never changes: build it with a new --version",
        )
    signed.targets[path] = entry
    signed.version += 1
    signed.expires = expires(now, TARGETS_DAYS)
    return _sign(signed, signers)


def extend_targets(targets: bytes, signers: Sequence[Signer], now: datetime) -> bytes:
    """Return the same releases in a new targets document that expires later."""
    signed = _read(targets, Targets)
    signed.version += 1
    signed.expires = expires(now, TARGETS_DAYS)
    return _sign(signed, signers)


def add_signature(document: bytes, signer: Signer) -> bytes:
    """Return a document with one more signature, for thresholds above one."""
    metadata: Metadata[Any] = Metadata.from_bytes(document)
    metadata.sign(signer, append=True)
    return metadata.to_bytes()


def check_targets(root: bytes, old: bytes, new: bytes, now: datetime) -> None:
    """Decide whether an uploaded targets document may follow the published one.

    Raises:
        PublishError: The subclass says why not.
    """
    before, after = _read(old, Targets), _read(new, Targets)
    metadata: Metadata[Targets] = Metadata[Targets].from_bytes(new)
    try:
        _read(root, Root).verify_delegate("targets", metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, SerializationError) as error:
        raise NotSignedError(
            f"the releases document is not signed by the release keys of this fleet ({error})",
            hint="push with the keys that `fleet init` made, and with as many as the threshold asks for",
        ) from error
    if after.version <= before.version:
        raise VersionBackError(
            f"the releases document has version {after.version}, but {before.version} is published",
            hint="someone pushed meanwhile: push again",
        )
    if after.is_expired(now):
        raise PublishError("the releases document has expired", hint="push again; check this machine's clock")
    _only_added(before, after)


def publish(
    repository: Repository, targets: bytes, snapshot_signer: Signer, timestamp_signer: Signer, now: datetime
) -> Repository:
    """Return the repository with an uploaded targets document, checked, in a new snapshot and timestamp.

    Raises:
        PublishError: The subclass says why the document is refused; nothing changed.
    """
    if len(targets) > MAX_TARGETS_BYTES:
        raise PublishError(f"the releases document has {len(targets)} bytes; devices read at most {MAX_TARGETS_BYTES}")
    check_targets(repository.root, repository.targets, targets, now)
    return renew(
        Repository(repository.root, targets, repository.snapshot, repository.timestamp),
        snapshot_signer,
        timestamp_signer,
        now,
    )


def renew(repository: Repository, snapshot_signer: Signer, timestamp_signer: Signer, now: datetime) -> Repository:
    """Return the repository with a new snapshot and timestamp; to be called daily, and after a new root."""
    snapshot = _read(repository.snapshot, Snapshot)
    snapshot.version += 1
    snapshot.expires = expires(now, ONLINE_DAYS)
    snapshot.meta = {"targets.json": MetaFile(_version(repository.targets))}
    timestamp = _read(repository.timestamp, Timestamp)
    timestamp.version += 1
    timestamp.expires = expires(now, ONLINE_DAYS)
    timestamp.snapshot_meta = MetaFile(snapshot.version)
    return Repository(
        repository.root, repository.targets, _sign(snapshot, [snapshot_signer]), _sign(timestamp, [timestamp_signer])
    )


def _only_added(before: Targets, after: Targets) -> None:
    for path, entry in before.targets.items():
        if after.targets.get(path) != entry:
            raise TargetChangedError(
                f"{path} is already released, and the new releases document changes or drops it",
                hint="a release never changes: build it with a new --version",
            )
    highest = {model: max(counters) for model, counters in _counters(before).items()}
    for path in sorted(after.targets.keys() - before.targets.keys()):
        facts = _facts(after.targets[path])
        floor = highest.get(facts["model"], 0)
        if facts["release_counter"] <= floor:
            raise CounterBackError(
                f"{path}: release counter {facts['release_counter']} of model {facts['model']} goes back; "
                f"{floor} is published",
                hint="`fleet push` counts by itself: push again with an up-to-date releases document",
            )


def _counters(targets: Targets) -> dict[str, list[int]]:
    counters: dict[str, list[int]] = {}
    for entry in targets.targets.values():
        facts = _facts(entry)
        counters.setdefault(facts["model"], []).append(facts["release_counter"])
    return counters


def _facts(entry: TargetFile) -> Mapping[str, Any]:
    facts = entry.custom
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), str):
        raise PublishError(f"{entry.path}: the releases document does not say which model this is")
    counter = facts.get("release_counter")
    if not isinstance(counter, int) or isinstance(counter, bool) or counter < 1:
        raise PublishError(f"{entry.path}: the release counter is not a positive number")
    return facts


def _read(document: bytes, kind: type[T]) -> T:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(document)
    except DeserializationError as error:
        raise PublishError(f"not a {kind.type} document: {error}") from error
    if metadata.signed.type != kind.type:
        raise PublishError(f"a {metadata.signed.type} document where {kind.type} is needed")
    return metadata.signed


def _version(document: bytes) -> int:
    metadata: Metadata[Any] = Metadata.from_bytes(document)
    version: int = metadata.signed.version
    return version


def _sign(signed: T, signers: Sequence[Signer]) -> bytes:
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
