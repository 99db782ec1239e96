"""The release repository on the server: documents signed elsewhere, kept fresh by the snapshot and timestamp keys.

Documents are written before rows: a server that dies in between fills in the missing rows when it starts. The
timestamp is written last, so that devices see the old repository or the new one.
"""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from securesystemslib.signer import Signer
from sqlalchemy import select
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from fleet_server.bundles import BundleStore
from fleet_server.database.engine import Database, insert_once
from fleet_server.database.models import Audit, Release
from fleet_server.errors import NotFoundError
from fleet_server.signing.errors import PublishError
from fleet_server.signing.release import Repository, publish, renew
from ommatid.contract.bundle import verify_bundle
from ommatid.contract.manifest import Manifest
from ommatid.contract.trust.facts import ReleaseFacts, release_path
from ommatid.disk import RealDisk, replace_file
from ommatid.errors import BundleError

logger = logging.getLogger(__name__)

RENEW_EVERY: Final = timedelta(days=1)
DOCUMENT: Final = re.compile(r"(?:[1-9][0-9]{0,9}\.(?:root|targets|snapshot)|timestamp)\.json")


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """What the server may sign of the release repository."""

    snapshot: Signer
    timestamp: Signer


class ReleaseRepository:
    """The signed documents in one folder, and a database row a release."""

    def __init__(
        self,
        folder: Path,
        keys: OnlineKeys,
        bundles: BundleStore,
        database: Database,
        tenant: str,
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._bundles = bundles
        self._database = database
        self._tenant = tenant
        self._now = now
        self._lock = threading.Lock()

    def document(self, name: str) -> bytes:
        """Return a document by the name that devices ask for.

        Raises:
            NotFoundError: There is none.
        """
        path = self._folder / name
        if not DOCUMENT.fullmatch(name) or not path.is_file():
            raise NotFoundError(f"there is no document {name[:80]!r} in the release repository")
        return path.read_bytes()

    def current(self) -> Repository:
        """Return the newest document of each role."""
        timestamp = self.document("timestamp.json")
        snapshot = self.document(
            f"{Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version}.snapshot.json"
        )
        targets_version = Metadata[Snapshot].from_bytes(snapshot).signed.meta["targets.json"].version
        newest_root = max(int(path.name.split(".")[0]) for path in self._folder.glob("*.root.json"))
        return Repository(
            root=self.document(f"{newest_root}.root.json"),
            targets=self.document(f"{targets_version}.targets.json"),
            snapshot=snapshot,
            timestamp=timestamp,
        )

    def publish(self, targets: bytes, who: str) -> list[Release]:
        """Take a signed targets document; return the releases that it adds.

        Raises:
            PublishError: It is refused; the subclass says why.
            BundleError: A bundle that it names is missing here, or is not what it says.
        """
        with self._lock:
            before = self.current()
            repository = publish(before, targets, self._keys.snapshot, self._keys.timestamp, self._now())
            known = _targets(before.targets)
            added = {path: entry for path, entry in _targets(targets).items() if path not in known}
            manifests = {path: self._checked(path, entry) for path, entry in added.items()}
            self._write(repository)
            self._add_rows(added, manifests, who)
        with self._database.read() as session:
            statement = select(Release).where(Release.tenant == self._tenant, Release.path.in_(added))
            return list(session.scalars(statement))

    def every(self, tenant: str) -> list[Release]:
        """Return the releases of a tenant, the newest first."""
        with self._database.read() as session:
            statement = select(Release).where(Release.tenant == tenant).order_by(Release.id.desc())
            return list(session.scalars(statement))

    def reconcile(self) -> None:
        """Add the rows that a server which died did not write any more."""
        with self._lock, self._database.read() as session:
            entries = _targets(self.current().targets)
            known = set(session.scalars(select(Release.path).where(Release.tenant == self._tenant)))
        for path, entry in entries.items():
            if path in known:
                continue
            try:
                self._add_rows({path: entry}, {path: self._checked(path, entry)}, "reconcile")
            except (PublishError, BundleError) as error:
                logger.error("%s: released, but cannot be offered: %s", path, error)  # noqa: TRY400 - says it all

    def renew_due(self) -> bool:
        """Sign snapshot and timestamp again once a day; return whether it was done."""
        with self._lock:
            repository = self.current()
            signed = Metadata[Timestamp].from_bytes(repository.timestamp).signed
            fresh_until = signed.expires - timedelta(days=30) + RENEW_EVERY
            if self._now() < fresh_until:
                return False
            self._write(renew(repository, self._keys.snapshot, self._keys.timestamp, self._now()))
        logger.info("releases: snapshot and timestamp signed again")
        return True

    def expiries(self) -> dict[str, datetime]:
        """Return when the documents expire that only the release keys can sign again."""
        repository = self.current()
        return {
            "root": Metadata[Root].from_bytes(repository.root).signed.expires,
            "targets": Metadata[Targets].from_bytes(repository.targets).signed.expires,
        }

    def _checked(self, path: str, entry: TargetFile) -> Manifest:
        """Compare what is signed of a release with the bundle itself."""
        digest = entry.hashes.get("sha256", "")
        try:
            file = self._bundles.path(digest)
        except NotFoundError as error:
            raise PublishError(f"{path}: its bundle is not on this server", hint="upload the bundle first") from error
        if file.stat().st_size != entry.length:
            raise PublishError(f"{path}: signed with {entry.length} bytes, but the bundle has {file.stat().st_size}")
        manifest = verify_bundle(file)
        facts = _facts(entry)
        expected = ReleaseFacts(
            model=manifest.name,
            version=manifest.version,
            target=manifest.target,
            hardware=manifest.compatible.arch,
            release_counter=facts.release_counter,
            minimum_agent=manifest.compatible.minimum_agent,
        )
        for name in ReleaseFacts.model_fields:
            if getattr(facts, name) != getattr(expected, name):
                raise PublishError(
                    f"{path}: signed with {name} {getattr(facts, name)!r}, but the bundle says "
                    f"{getattr(expected, name)!r}"
                )
        if path != release_path(facts):
            raise PublishError(f"{path}: this bundle belongs to {release_path(facts)}")
        return manifest

    def _write(self, repository: Repository) -> None:
        disk = RealDisk()
        files = repository.files()
        timestamp = files.pop("timestamp.json")
        for name, content in files.items():
            replace_file(disk, self._folder / name, content)
        replace_file(disk, self._folder / "timestamp.json", timestamp)

    def _add_rows(self, entries: dict[str, TargetFile], manifests: dict[str, Manifest], who: str) -> None:
        if not entries:
            return
        now = self._now()
        with self._database.write() as session:
            for path, entry in entries.items():
                insert_once(session, Release, [self._row(path, entry, manifests[path], now, who)])
                session.add(Audit(tenant=self._tenant, at=now, who=who, what="release", subject=path, detail={}))
                logger.info("%s: released by %s", path, who)

    def _row(self, path: str, entry: TargetFile, manifest: Manifest, now: datetime, who: str) -> dict[str, Any]:
        return {
            "tenant": self._tenant,
            "model": manifest.name,
            "version": manifest.version,
            "target": manifest.target,
            "path": path,
            "digest": entry.hashes["sha256"],
            "length": entry.length,
            "hardware": list(manifest.compatible.arch),
            "minimum_agent": manifest.compatible.minimum_agent,
            "release_counter": _facts(entry).release_counter,
            "manifest": manifest.model_dump(mode="json"),
            "evidence": manifest.evidence.model_dump(mode="json"),
            "pushed_at": now,
            "pushed_by": who,
        }


def _targets(document: bytes) -> dict[str, TargetFile]:
    signed: Targets = Metadata[Targets].from_bytes(document).signed
    return signed.targets


def _facts(entry: TargetFile) -> ReleaseFacts:
    try:
        return ReleaseFacts.model_validate(entry.custom)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "facts"
        raise PublishError(f"{entry.path}: {place}: {first['msg']}") from error
