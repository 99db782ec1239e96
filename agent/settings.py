"""The settings of edge-agent: flags win over `EDGE_AGENT_*` variables, those over agent.toml, that over the defaults.

docs/agent.md lists them; that table is generated from this class by `python -m agent.settings`.
"""

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ommatid.errors import BadInputError

DEFAULT_CONFIG: Final = Path("/etc/edge-agent/agent.toml")
DEFAULT_STATE_DIR: Final = Path("/var/lib/edge-agent")
BUILD_PREFIX: Final = "EDGE_AGENT_"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Everything that can be set, with its unit."""

    model_config = SettingsConfigDict(env_prefix=BUILD_PREFIX, extra="forbid", frozen=True)

    state_dir: Path = Field(DEFAULT_STATE_DIR, description="folder of identity, models, records and sockets")
    source: str | None = Field(
        None,
        description="video file or image folder; `video.avi#t=10,30&loop` plays seconds 10 to 30 again and again, "
        "`photos#fps=2` shows two images a second",
    )
    source_name: str = Field("camera", description="name of the source in results and telemetry", max_length=100)
    as_fast_as_possible: bool = Field(
        False, description="infer every frame of a file, however long it takes, instead of the newest at its own rate"
    )
    threads: int = Field(1, ge=1, le=64, description="threads of one inference; only 1 loads new models unnoticed")
    quality: bool = Field(True, description="check brightness, focus and more on each frame")
    results: str | None = Field(
        None, description="file that each result is appended to as one JSON line; `-` is stdout"
    )
    http_host: str = Field("127.0.0.1", description="address of /metrics, /healthz, /readyz and /status")
    http_port: int = Field(9477, ge=0, le=65535, description="port of them; 0 takes any free one")
    ready_s: Seconds = Field(10.0, description="ready means: a frame was inferred in the last so many seconds")
    status_interval_s: Seconds = Field(10.0, description="seconds between two state messages; changes go at once")
    window_s: Seconds = Field(900.0, description="seconds that one telemetry window covers")
    probation_s: Seconds = Field(10.0, description="seconds that a new model must run well before it is committed")
    probation_frames: int = Field(60, ge=1, description="frames that a new model must infer before it is committed")
    trial_memory_mb: int = Field(1024, ge=64, description="memory limit of the trial of a new model, in MB")
    trial_timeout_s: Seconds = Field(120.0, description="seconds that the trial of a new model may take")
    spool_mb: int = Field(16, ge=1, description="size limit of the reports that wait for the server, in MB")
    keepalive_s: int = Field(30, ge=5, le=3600, description="seconds after which a silent broker is asked for a sign")
    verbose: bool = Field(False, description="log details")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the name is the framework's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take flags, then the environment, then the TOML file that `load_settings` names."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Read all settings once.

    Args:
        config: The TOML file; None means the default one, which need not exist.
        flags: What the command line says; None values are left out.

    Raises:
        BadInputError: The file is missing or not TOML, or a value is wrong; where it came from is named.
    """
    path = config or DEFAULT_CONFIG
    in_file = _read_toml(path, required=config is not None)

    class FromFile(Settings):
        """The settings with one TOML file."""

        model_config = SettingsConfigDict(toml_file=path if path.is_file() else None)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings.model_construct(**FromFile(**given).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInputError(
            f"{_origin(name, given, in_file, path)}: {what}", hint="docs/agent.md lists every setting"
        ) from error


def reference() -> str:
    """Return the table of all settings for docs/agent.md."""
    lines = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{_plain(field.default)}`"
        lines.append(f"| `{name}` | `{BUILD_PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise BadInputError(f"{path}: no such file", hint="name an existing TOML file, or leave --config out")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not readable as TOML: {error}", hint="docs/agent.md shows one") from error


def _origin(name: str, flags: dict[str, Any], in_file: dict[str, Any], path: Path) -> str:
    if name in flags:
        return f"--{name.replace('_', '-')}"
    return f"{path}: {name}" if name in in_file else f"{BUILD_PREFIX}{name.upper()}"


if __name__ == "__main__":
    sys.stdout.write(reference())
