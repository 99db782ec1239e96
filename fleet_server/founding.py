"""Make a new fleet: keys, both trust roots, CA, database, settings and the first operator's token.

Everything is made aside and appears in one step, or not at all.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleet_server.authority import Authority, write_secret
from fleet_server.credentials import hash_secret, new_secret
from fleet_server.database.engine import Database
from fleet_server.database.models import Audit, OperatorToken
from fleet_server.keyring import Keyring
from fleet_server.places import Places
from fleet_server.profile import Profile
from fleet_server.roles import Role
from fleet_server.settings import Settings
from fleet_server.signing.director import create_director
from fleet_server.signing.keys import create_key
from fleet_server.signing.release import ReleaseSigners, create_release
from ommatid.errors import BadInputError

FIRST_OPERATOR = "admin"


@dataclass(frozen=True, slots=True)
class Founded:
    """Where everything lies now."""

    places: Places
    keys: Keyring
    settings: Settings


def found(root: Path, keys: Path, settings: Settings, passphrase: bytes | None, now: datetime) -> Founded:
    """Make a server's folder and the release engineer's folder of keys.

    Raises:
        BadInputError: One of the folders holds something already, or one lies in the other.
        OSError: The disk is full or read-only; nothing stays.
    """
    root, keys = root.resolve(), keys.resolve()
    if keys.is_relative_to(root):
        raise BadInputError(
            f"{keys}: the release keys would lie in the server's folder",
            hint="they must not be on the server: name another folder, best on a medium that is put away",
        )
    for folder in (root, keys):
        _require_free(folder)
    aside, keys_aside = (folder.with_name(f".{folder.name}.partial") for folder in (root, keys))
    try:
        for folder in (aside, keys_aside):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
        _make(Places(aside), Keyring(keys_aside), settings, passphrase, now)
        keys_aside.replace(keys)
        aside.replace(root)
    finally:
        for folder in (aside, keys_aside):
            shutil.rmtree(folder, ignore_errors=True)
    return Founded(Places(root), Keyring(keys), settings)


def _make(places: Places, keys: Keyring, settings: Settings, passphrase: bytes | None, now: datetime) -> None:
    for folder in (places.keys, places.bundles, places.broker):
        folder.mkdir(mode=0o700)
    release_root, release_targets, director_root = keys.create(passphrase)
    snapshot, timestamp, director = (
        create_key(places.keys / f"{role}.key") for role in ("snapshot", "timestamp", "director")
    )
    repository = create_release(ReleaseSigners([release_root], [release_targets], snapshot, timestamp), now)
    _write_documents(places.metadata / "release", repository.files())
    director_document = create_director([director_root], [director], now)
    _write_documents(places.metadata / "director", {"1.root.json": director_document})
    keys.release_root.write_bytes(repository.root)
    keys.director_root.write_bytes(director_document)
    Authority.create(places.authority, now)
    places.settings.write_text(settings.encode(), encoding="utf-8")
    _first_operator(places, settings, now)


def _first_operator(places: Places, settings: Settings, now: datetime) -> None:
    secret = new_secret()
    database = Database.at(places.database)
    database.migrate()
    with database.write() as session:
        session.add(
            OperatorToken(
                tenant=settings.tenant,
                name=FIRST_OPERATOR,
                role=Role.ADMIN,
                secret_hash=hash_secret(secret),
                created_at=now,
            )
        )
        session.add(Audit(tenant=settings.tenant, at=now, who="fleet init", what="init", subject=settings.tenant))
    database.close()
    write_secret(places.operator_token, f"{secret}\n".encode())
    profile = Profile(server=settings.url, ca=Path("authority/ca.crt"), token_file=Path("operator.token"))
    places.profile.write_text(profile.encode(), encoding="utf-8")


def _write_documents(folder: Path, documents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in documents.items():
        (folder / name).write_bytes(content)


def _require_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise BadInputError(
            f"{folder}: there is something already", hint="nothing is ever overwritten: name a new or an empty folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
