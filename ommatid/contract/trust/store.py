"""The device's memory of whom it trusts: pinned roots, accepted metadata, and floors.

A director document is either accepted, and then everything it brings is durable, or refused, and then nothing here
has changed but newer roots, which only offline keys can sign.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tuf.ngclient import FetcherInterface

from ommatid import __version__
from ommatid.contract.trust.clock import BUILD_DATE, raised_floor, reference_time
from ommatid.contract.trust.director import DirectorDocument, DirectorRoots, verify_document
from ommatid.contract.trust.errors import FloorsLostError
from ommatid.contract.trust.floors import Floors, copies_agree, load_floors, save_floors
from ommatid.contract.trust.folder import MetadataFolder
from ommatid.contract.trust.policy import Assignment, assign
from ommatid.contract.trust.release import ReleaseClient, targets_expiry
from ommatid.disk import Disk


class TrustStore:
    """The trust of one device, in one folder. Any number of processes may open it; one at a time works in it."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        *,
        release_root: bytes,
        director_root: bytes,
        release_url: str,
        director_url: str,
        fetcher: FetcherInterface,
        agent: str = __version__,
    ) -> None:
        """Say where the state lies, what it starts from, and where newer metadata is; nothing is read yet."""
        self._folder = MetadataFolder(folder, disk)
        self._disk = disk
        self._release_root = release_root
        self._release_url = release_url
        self._fetcher = fetcher
        self._agent = agent
        self._roots = DirectorRoots(folder / "director", disk, director_root, director_url, fetcher)

    def check(self, document: bytes, *, device: str, tenant: str, hardware: str, now: datetime) -> Assignment | None:
        """Judge a director document, and return what to run, or None if it says to run nothing.

        The same document may come again: that gives the same answer.

        Args:
            document: The bytes, as a retained message or over HTTP.
            device: This device's id.
            tenant: This device's tenant.
            hardware: This machine's name, as `uname -m`.
            now: The device's clock, in UTC, right or wrong.

        Raises:
            TrustError: It is refused; the subclass says why. Nothing changed.
            LinkError: The release repository cannot be reached; try again later. Nothing changed.
            StorageError: The disk is full or broken.
        """
        with self._folder.locked():
            floors = self._load()
            reference = reference_time(now, floors.time)
            root = self._roots.newest()
            verified = verify_document(document, root, device=device, tenant=tenant, now=reference, floors=floors)
            if verified.target is None:
                self._accept(verified, floors)
                return None
            assignment = self._match(verified, hardware, reference, floors)
            self._folder.commit()
            self._accept(verified, floors)
            return assignment

    def raise_counter_floor(self, model: str, counter: int) -> None:
        """Refuse releases of `model` below `counter` from now on; called with the `previous` slot's at each commit."""
        with self._folder.locked():
            floors = self._load()
            if floors.counters.get(model, 0) < counter:
                save_floors(self._folder.path, self._disk, floors.with_counter(model, counter))

    def floors(self) -> Floors:
        """Return the floors as they are now.

        Raises:
            FloorsLostError: Both copies are damaged.
        """
        with self._folder.locked():
            return self._load()

    def _match(self, verified: DirectorDocument, hardware: str, reference: datetime, floors: Floors) -> Assignment:
        """Refresh the release side in the staging folder, and find there what the director names."""
        target = verified.target
        if target is None:
            raise ValueError("nothing to match")
        staging = self._folder.stage()
        try:
            release = ReleaseClient(staging, self._release_url, self._release_root, self._fetcher, reference)
            release.refresh()
            released = release.find(target.path)
            return assign(verified.version, target, released, hardware=hardware, agent=self._agent, floors=floors)
        except BaseException:
            self._folder.commit(only_roots=True)
            raise

    def _accept(self, verified: DirectorDocument, floors: Floors) -> None:
        time, targets = floors.time, self._folder.read().get("targets.json")
        if targets is not None:
            time = raised_floor(time, verified.issued, targets_expiry(targets))
        raised = replace(
            floors,
            time=time,
            director_version=verified.version,
            director_sha256=verified.sha256,
            director_keys=verified.keys,
        )
        if raised != floors:
            save_floors(self._folder.path, self._disk, raised)

    def _load(self) -> Floors:
        """Return the floors; the first time make them, and heal a damaged copy from the other."""
        floors = load_floors(self._folder.path)
        if floors is None:
            if self._folder.pinned is not None:
                raise FloorsLostError(self._folder.path)
            floors = Floors(BUILD_DATE)
        if not copies_agree(self._folder.path):
            save_floors(self._folder.path, self._disk, floors)
        self._folder.pin(self._release_root)
        return replace(floors, time=max(floors.time, BUILD_DATE))
