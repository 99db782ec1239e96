"""Which installed bundle is what: `models/<name>/{current,previous,candidate}` and `models/active`, all links.

The loop starts from `models/active/current`. Each change is one rename, durable before the next, in an order that
leaves `current` pointing to a whole bundle at every moment once there was one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ommatid.disk import Disk, replace_link
from ommatid.errors import StorageError

_TO_STORE: Final = "../../store"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Slots:
    """The digests that the slots of one model name; None where there is no link, or one that leads nowhere."""

    current: str | None = None
    previous: str | None = None
    candidate: str | None = None

    @property
    def digests(self) -> frozenset[str]:
        """Return all digests that are named."""
        return frozenset(digest for digest in (self.current, self.previous, self.candidate) if digest)


class SlotLinks:
    """The folder `models/` of one state directory."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._models = root / "models"
        self._disk = disk

    def prepare(self) -> None:
        """Make the folder, remove links that a kill left half made, and mend a `current` that leads nowhere.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        if not self._models.is_dir():
            self._disk.mkdir(self._models)
            self._disk.sync(self._models.parent)
        for folder in (self._models, *self._folders()):
            for link in folder.glob(".*.new"):
                self._disk.unlink(link)
        for folder in self._folders():
            slots = self.of(folder.name)
            if slots.current is None and slots.previous is not None and (folder / "current").is_symlink():
                replace_link(self._disk, folder / "current", f"{_TO_STORE}/{slots.previous}")

    @property
    def active(self) -> str | None:
        """Return the name of the model that this device runs."""
        name = _link(self._models / "active")
        return name if name and (self._models / name).is_dir() else None

    @property
    def running(self) -> str | None:
        """Return the digest that the loop starts from."""
        return self.of(self.active).current if self.active else None

    def of(self, model: str) -> Slots:
        """Return the slots of one model."""
        folder = self._models / model
        return Slots(*(self._digest(folder / slot) for slot in ("current", "previous", "candidate")))

    def every_digest(self) -> frozenset[str]:
        """Return what any slot of any model names."""
        return frozenset().union(*(self.of(folder.name).digests for folder in self._folders()))

    def stand_by(self, model: str, digest: str) -> None:
        """Name an installed bundle as the candidate.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        folder = self._models / model
        if not folder.is_dir():
            self._disk.mkdir(folder)
            self._disk.sync(self._models)
        self._point(folder / "candidate", digest)

    def promote(self, model: str, digest: str, base: str | None) -> None:
        """Make `digest` what the loop starts from, and `base` what one can go back to.

        May be called again with the same arguments after a cut at any moment: `current` is changed first, so that
        the former `previous` is not lost for a commit that did not happen.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        folder = self._models / model
        self._point(folder / "current", digest)
        if base is not None and base != digest:
            self._point(folder / "previous", base)
        if _link(self._models / "active") != model:
            replace_link(self._disk, self._models / "active", model)
        self.stand_down(model)

    def stand_down(self, model: str) -> None:
        """Remove the candidate's link.

        Raises:
            StorageError: The disk is read-only or broken.
        """
        candidate = self._models / model / "candidate"
        if candidate.is_symlink():
            self._disk.unlink(candidate)
            self._disk.sync(candidate.parent)

    def forget_previous(self, model: str) -> None:
        """Remove the link to a previous bundle that turned out to be damaged.

        Raises:
            StorageError: The disk is read-only or broken.
        """
        previous = self._models / model / "previous"
        self._disk.unlink(previous)
        self._disk.sync(previous.parent)

    def _point(self, link: Path, digest: str) -> None:
        replace_link(self._disk, link, f"{_TO_STORE}/{digest}")

    def _digest(self, link: Path) -> str | None:
        digest = (_link(link) or "").rpartition("/")[2]
        return digest if _DIGEST.fullmatch(digest) and link.is_dir() else None

    def _folders(self) -> list[Path]:
        try:
            return sorted(entry for entry in self._models.iterdir() if entry.is_dir() and not entry.is_symlink())
        except OSError as error:
            raise StorageError(f"{self._models}: {error.strerror}", hint="check this disk") from error


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None
