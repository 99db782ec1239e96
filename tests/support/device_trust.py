"""A device's trust store against a fleet in memory."""

from datetime import datetime
from pathlib import Path

from ommatid.contract.trust.policy import Assignment
from ommatid.contract.trust.store import TrustStore
from ommatid.disk import Disk, RealDisk
from tests.support.repository import DIRECTOR_URL, RELEASE_URL, TODAY, Fleet, MemoryFetcher


class Device:
    """camera-1 of acme, an aarch64 board."""

    def __init__(self, folder: Path, fleet: Fleet, disk: Disk | None = None) -> None:
        self.folder = folder
        self.fetcher = MemoryFetcher(fleet.files)
        self.store = TrustStore(
            folder,
            disk or RealDisk(),
            release_root=fleet.pinned_release_root,
            director_root=fleet.pinned_director_root,
            release_url=RELEASE_URL,
            director_url=DIRECTOR_URL,
            fetcher=self.fetcher,
            agent="0.1.0",
        )

    def check(self, document: bytes, *, now: datetime = TODAY, hardware: str = "aarch64") -> Assignment | None:
        return self.store.check(document, device="camera-1", tenant="acme", hardware=hardware, now=now)

    def state(self) -> dict[str, bytes]:
        """Return every byte that outlives this process."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.name != ".lock"
        } | {
            str(path.relative_to(self.folder)): str(path.readlink()).encode()
            for path in sorted(self.folder.rglob("*"))
            if path.is_symlink()
        }
