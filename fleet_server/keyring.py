"""The release engineer's keys, in a folder of their own: never on the server, best on a medium that is put away."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner

from fleet_server.signing.keys import create_key, load_key
from ommatid.disk import RealDisk, replace_file
from ommatid.errors import BadInputError

RELEASE_ROOT: Final = "release-root.key"
RELEASE_TARGETS: Final = "release-targets.key"
DIRECTOR_ROOT: Final = "director-root.key"


@dataclass(frozen=True, slots=True)
class Keyring:
    """A folder of release keys, beside the roots that name them."""

    folder: Path

    @property
    def release_root(self) -> Path:
        """The release repository's newest root that its holder signed."""
        return self.folder / "release.root.json"

    @property
    def director_root(self) -> Path:
        """The director's newest root that its holder signed."""
        return self.folder / "director.root.json"

    @property
    def last_targets(self) -> Path:
        """The releases document last pushed from here: a server must not show an older one."""
        return self.folder / "release.targets.json"

    def create(self, passphrase: bytes | None) -> tuple[CryptoSigner, CryptoSigner, CryptoSigner]:
        """Make the keys of release root, release targets and director root."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root, targets, director = (
            create_key(self.folder / name, passphrase) for name in (RELEASE_ROOT, RELEASE_TARGETS, DIRECTOR_ROOT)
        )
        return root, targets, director

    def targets_signer(self, passphrase: bytes | None) -> CryptoSigner:
        """Return the key that signs releases.

        Raises:
            KeyFileError: It is missing or cannot be used.
        """
        return load_key(self.folder / RELEASE_TARGETS, passphrase)

    def read_release_root(self) -> bytes:
        """Return the root of the release repository.

        Raises:
            BadInputError: It is not there.
        """
        try:
            return self.release_root.read_bytes()
        except FileNotFoundError as error:
            raise BadInputError(
                f"{self.folder}: no release.root.json here", hint="name the folder that `fleet init --keys` wrote"
            ) from error

    def read_last_targets(self) -> bytes | None:
        """Return the releases document last pushed from here, if any."""
        try:
            return self.last_targets.read_bytes()
        except FileNotFoundError:
            return None

    def remember(self, targets: bytes) -> None:
        """Keep the releases document that was just pushed."""
        replace_file(RealDisk(), self.last_targets, targets)
