"""What the loop is told at start: one JSON document, read without pydantic.

Whoever starts the loop has validated these settings; here only what would crash later is checked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ommatid.errors import BadInputError


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One camera, video or image folder, as `agent.loop.sources` understands it."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """All settings of the loop.

    sources: at least one; names are unique.
    socket: where the supervisor finds the loop; the folder exists.
    models: the slot folder; `models/active` points to the model's own folder with `current` and `previous`.
    threads: of the runtime for one inference; only with 1 a model loads at low priority.
    quality: whether the quality checks judge every frame.
    as_fast_as_possible: take a source's pictures one after the other instead of at its own rate, as fast as the
        supervisor reads the results; no picture is dropped and no result is lost.
    """

    sources: tuple[SourceConfig, ...]
    socket: Path
    models: Path
    threads: int = 1
    quality: bool = True
    as_fast_as_possible: bool = False

    def encode(self) -> str:
        """Return the document that `parse_config` reads."""
        return json.dumps(
            {
                "sources": [{"name": source.name, "source": source.source} for source in self.sources],
                "socket": str(self.socket),
                "models": str(self.models),
                "threads": self.threads,
                "quality": self.quality,
                "as_fast_as_possible": self.as_fast_as_possible,
            }
        )


def parse_config(text: str) -> LoopConfig:
    """Read the document.

    Raises:
        BadInputError: It is not JSON, or a setting is missing or of the wrong kind; the first such is named.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"loop configuration: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInputError("loop configuration: not a JSON object")
    return LoopConfig(
        sources=_sources(document),
        socket=Path(_setting(document, "socket", str)),
        models=Path(_setting(document, "models", str)),
        threads=_threads(document),
        quality=_setting(document, "quality", bool, default=True),
        as_fast_as_possible=_setting(document, "as_fast_as_possible", bool, default=False),
    )


def _sources(document: Mapping[str, Any]) -> tuple[SourceConfig, ...]:
    entries = _setting(document, "sources", list)
    if not entries:
        raise BadInputError("loop configuration: `sources` is empty", hint="name a video or a folder of images")
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadInputError("loop configuration: each of `sources` is an object with `name` and `source`")
    sources = tuple(SourceConfig(_setting(entry, "name", str), _setting(entry, "source", str)) for entry in entries)
    if len({source.name for source in sources}) != len(sources):
        raise BadInputError("loop configuration: two sources of one name")
    return sources


def _threads(document: Mapping[str, Any]) -> int:
    threads: int = _setting(document, "threads", int, default=1)
    if threads < 1:
        raise BadInputError(f"loop configuration: `threads` is {threads}; at least 1")
    return threads


def _setting(document: Mapping[str, Any], name: str, kind: type, default: object = None) -> Any:  # noqa: ANN401 - `kind` says it
    value = document.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInputError(f"loop configuration: `{name}` is missing or not {kind.__name__}")
    return value
