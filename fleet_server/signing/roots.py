"""Root documents of both sides: which keys may sign what, and how many of them it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Role, Root

from fleet_server.signing.errors import ClockBehindError, NotSignedError
from ommatid.contract.trust.clock import BUILD_DATE, format_time

ROOT_DAYS: Final = 730
ROLES: Final = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The public keys of one role, and how many of them must sign."""

    keys: Sequence[Key]
    threshold: int = 1


def create_root(roles: Mapping[str, RoleKeys], signers: Sequence[Signer], now: datetime) -> bytes:
    """Return version 1 of a root, signed; a role that `roles` leaves out can never be signed for.

    Raises:
        NotSignedError: Too few of its own root keys signed.
        ClockBehindError: This machine's clock is wrong.
    """
    root = _root(roles, 1, now)
    metadata = _signed(root, signers)
    _require(root, metadata)
    return metadata.to_bytes()


def next_root(old: bytes, roles: Mapping[str, RoleKeys], signers: Sequence[Signer], now: datetime) -> bytes:
    """Return the successor of a root with other keys; the old root's keys and the new root's must both sign.

    Raises:
        NotSignedError: Too few keys of the old or of the new root signed.
        ClockBehindError: This machine's clock is wrong.
    """
    previous: Root = Metadata[Root].from_bytes(old).signed
    root = _root(roles, previous.version + 1, now)
    metadata = _signed(root, signers)
    _require(previous, metadata)
    _require(root, metadata)
    return metadata.to_bytes()


def roles_of(root: bytes) -> dict[str, RoleKeys]:
    """Return the keys and thresholds that a root names, as a start for `next_root`."""
    signed: Root = Metadata[Root].from_bytes(root).signed
    return {
        name: RoleKeys(tuple(signed.keys[keyid] for keyid in role.keyids), role.threshold)
        for name, role in signed.roles.items()
        if role.keyids
    }


def expires(now: datetime, days: int) -> datetime:
    """Return the expiry of what is signed now.

    Raises:
        ClockBehindError: It cannot be so early; what we sign would be expired when it arrives.
    """
    if now < BUILD_DATE:
        raise ClockBehindError(
            f"the clock of this machine says {format_time(now)}, which is before this release was made",
            hint="set the clock (`timedatectl set-ntp true`), then try again",
        )
    return now.replace(microsecond=0) + timedelta(days=days)


def _root(roles: Mapping[str, RoleKeys], version: int, now: datetime) -> Root:
    empty = {name: Role([], 1) for name in ROLES}
    root = Root(version, None, expires(now, ROOT_DAYS), {}, empty, consistent_snapshot=True)
    for name, role in roles.items():
        for key in role.keys:
            root.add_key(key, name)
        root.roles[name].threshold = role.threshold
    return root


def _signed(root: Root, signers: Sequence[Signer]) -> Metadata[Root]:
    metadata = Metadata(root)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def _require(delegator: Root, metadata: Metadata[Root]) -> None:
    try:
        delegator.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError as error:
        raise NotSignedError(
            f"root {metadata.signed.version}: {error}", hint="a new root is signed by the old root's keys and its own"
        ) from error
