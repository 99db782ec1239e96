"""The director: one small signed document a device, saying what it shall run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_server.signing.roots import RoleKeys, create_root, expires
from ommatid.contract.trust.clock import format_time

DOCUMENT_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class DirectedTarget:
    """A release as the director names it: path, length and digest must equal the release side's."""

    path: str
    length: int
    sha256: str
    model: str


def create_director(
    root_signers: Sequence[Signer], online_signers: Sequence[Signer], now: datetime, *, root_threshold: int = 1
) -> bytes:
    """Return version 1 of the director's root: root keys kept offline, and the server's online keys.

    To replace the online key later, use `roots.next_root` with `roots.roles_of`.
    """
    roles = {
        "root": RoleKeys([signer.public_key for signer in root_signers], root_threshold),
        "targets": RoleKeys([signer.public_key for signer in online_signers]),
    }
    return create_root(roles, root_signers, now)


def sign_document(
    signer: Signer, *, device: str, tenant: str, rev: int, target: DirectedTarget | None, now: datetime
) -> bytes:
    """Return what `device` shall run, signed; `rev` comes from one counter for all devices and only grows."""
    targets = {}
    if target is not None:
        entry = TargetFile(target.length, {"sha256": target.sha256}, target.path, {"custom": {"model": target.model}})
        targets[target.path] = entry
    facts = {"device": device, "tenant": tenant, "issued": format_time(now)}
    signed = Targets(rev, None, expires(now, DOCUMENT_DAYS), targets, unrecognized_fields=facts)
    metadata = Metadata(signed)
    metadata.sign(signer)
    return metadata.to_bytes()
