"""Where the server keeps what; everything lies in one folder, so that a backup is one copy."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Paths inside the server's folder."""

    root: Path

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.root / "fleet.toml"

    @property
    def profile(self) -> Path:
        """What the client commands of `fleet` need to reach this server."""
        return self.root / "operator.toml"

    @property
    def operator_token(self) -> Path:
        """The first operator's token, a secret."""
        return self.root / "operator.token"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "fleet.db"

    @property
    def authority(self) -> Path:
        """The fleet CA and the certificates of the server's own programs."""
        return self.root / "authority"

    @property
    def broker(self) -> Path:
        """Configuration, data and log of the Mosquitto that this server starts."""
        return self.root / "broker"

    @property
    def keys(self) -> Path:
        """The online keys: snapshot and timestamp of the release repository, targets of the director."""
        return self.root / "keys"

    @property
    def metadata(self) -> Path:
        """Signed metadata, `release/` and `director/`."""
        return self.root / "metadata"

    @property
    def bundles(self) -> Path:
        """Bundles by sha256."""
        return self.root / "bundles"
