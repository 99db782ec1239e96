"""How the client commands of `fleet` find and trust a server: `operator.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ommatid.errors import BadInputError


class Profile(BaseModel):
    """The address of a server, its CA, and where the operator's token lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    ca: Path
    token_file: Path

    def encode(self) -> str:
        """Return the profile as TOML."""
        return (
            "# How `fleet` reaches this server; paths are relative to this file. The token is a secret: keep its file"
            f' to yourself.\nserver = "{self.server}"\nca = "{self.ca}"\ntoken_file = "{self.token_file}"\n'
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a profile; relative paths in it start from its own folder.

        Raises:
            BadInputError: There is none, or it is damaged.
        """
        try:
            profile = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise BadInputError(
                f"{path}: no such profile",
                hint="`fleet init` writes one; name the server's folder with --dir, or a copy with --profile",
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
            raise BadInputError(f"{path}: not a profile: {error}") from error
        folder = path.parent
        return profile.model_copy(update={"ca": folder / profile.ca, "token_file": folder / profile.token_file})


@dataclass(frozen=True, slots=True)
class Station:
    """Where a command of `fleet` works: on a server's folder, or through a profile."""

    folder: Path
    profile_path: Path | None = None

    def profile(self) -> Profile:
        """Return the profile to reach the server with.

        Raises:
            BadInputError: There is none.
        """
        return Profile.load(self.profile_path or self.folder / "operator.toml")
