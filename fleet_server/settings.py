"""What an operator decides about one server, in `fleet.toml` of its folder."""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError

from ommatid.contract.messages import Identifier
from ommatid.errors import BadInputError

Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

HEADER: Final = "# Settings of this fleet server; `fleet serve` reads them when it starts.\n"


class Settings(BaseModel):
    """The settings of one server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Identifier = Field("default", description="the tenant whose devices enrol here")
    host: Host = Field("127.0.0.1", description="address to listen on, HTTP and MQTT")
    http_port: Port = Field(8443, description="port of API and page")
    mqtt_port: Port = Field(8883, description="port of the MQTT broker")
    name: Host = Field("localhost", description="name or address under which devices reach the server")
    more_names: tuple[Host, ...] = Field((), description="further names in the server's certificate")
    bundle_rate_limit: PositiveInt | None = Field(
        None, description="bytes a second for all bundle downloads together; none is no limit"
    )
    max_bundle_bytes: PositiveInt = Field(2 * 1024**3, description="largest bundle that is taken")
    report_days: PositiveInt = Field(90, description="days that reports of devices are kept")
    certificate_days: PositiveInt = Field(90, description="life of a device's certificate")

    @classmethod
    def checked(cls, **values: object) -> Self:
        """Return settings from a command line's values.

        Raises:
            BadInputError: One of them is not possible; it is named.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _wrong("--" + str(error.errors()[0]["loc"][0]).replace("_", "-"), error) from error

    @property
    def url(self) -> str:
        """Return the address of the HTTP API as devices see it."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        return f"https://{host}:{self.http_port}"

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name that the certificates of server and broker must carry."""
        wildcard = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        listening = () if self.host in wildcard else (self.host,)
        return tuple(dict.fromkeys((self.name, *self.more_names, *listening, "localhost", "127.0.0.1")))

    def encode(self) -> str:
        """Return the settings as TOML."""
        lines = [HEADER]
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            lines.append(f"\n# {field.description}\n")
            lines.append(f"# {name} =\n" if value is None else f"{name} = {_toml(value)}\n")
        return "".join(lines)


def load_settings(path: Path) -> Settings:
    """Read the settings of a server.

    Raises:
        BadInputError: There are none, or a line is wrong; the setting is named.
    """
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path.parent}: no fleet server here (no {path.name})", hint="`fleet init DIR --keys KEYDIR` makes one"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not TOML: {error}", hint="correct this line") from error
    except ValidationError as error:
        raise _wrong(f"{path}: {'.'.join(str(part) for part in error.errors()[0]['loc'])}", error) from error


def _wrong(place: str, error: ValidationError) -> BadInputError:
    return BadInputError(f"{place}: {error.errors()[0]['msg']}", hint="correct this setting")


def _toml(value: object) -> str:
    """Return a string, number or tuple as TOML; the patterns above keep quotes and backslashes out."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
