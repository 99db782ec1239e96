"""What must never go back, kept in two checksummed, fsynced copies of our own.

python-tuf writes without fsync: after a power cut its files may be empty, and an older, validly signed document would
be accepted again. These floors survive that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ommatid.contract.digests import canonical_json, sha256_bytes
from ommatid.contract.trust.clock import format_time, parse_time
from ommatid.contract.trust.errors import FloorsLostError
from ommatid.disk import Disk, replace_file

COPIES: Final = ("floors.a", "floors.b")
MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Floors:
    """The lowest that is still accepted.

    time: Reference time is never earlier.
    director_version, director_sha256: The newest accepted director document; the same bytes again are no replay.
    counters: Model name -> lowest release counter that may be installed.
    director_keys: Keys that could sign that document. Once the director's root names none of them, its version is
        no floor any more: a stolen key that signed the highest version would otherwise lock the device for ever.
    """

    time: datetime
    director_version: int = 0
    director_sha256: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    director_keys: tuple[str, ...] = ()

    def with_counter(self, model: str, counter: int) -> "Floors":
        """Return the floors with a model's counter raised; it never falls."""
        return replace(self, counters={**self.counters, model: max(counter, self.counters.get(model, 0))})


def load_floors(folder: Path) -> Floors | None:
    """Return the newest readable copy, or None if there never was one.

    Raises:
        FloorsLostError: There are copies, and none of them can be read.
    """
    copies = [_read(folder / name) for name in COPIES]
    for copy in copies:
        if copy is not None:
            return copy
    if any((folder / name).exists() for name in COPIES):
        raise FloorsLostError(folder)
    return None


def copies_agree(folder: Path) -> bool:
    """Tell whether both copies are readable and equal, as they are unless something went wrong."""
    first, second = (_read(folder / name) for name in COPIES)
    return first is not None and first == second


def save_floors(folder: Path, disk: Disk, floors: Floors) -> None:
    """Write both copies, one after the other: at every moment at least one is whole."""
    content = _encode(floors)
    for name in COPIES:
        replace_file(disk, folder / name, content)


def _encode(floors: Floors) -> bytes:
    payload = {
        "time": format_time(floors.time),
        "director_version": floors.director_version,
        "director_sha256": floors.director_sha256,
        "counters": dict(floors.counters),
        "director_keys": list(floors.director_keys),
    }
    return canonical_json({"floors": payload, "sha256": sha256_bytes(canonical_json(payload))})


def _read(path: Path) -> Floors | None:
    """Return one copy, or None if it is missing or damaged."""
    try:
        with path.open("rb") as file:
            document: dict[str, Any] = json.loads(file.read(MAX_BYTES))
        payload = document["floors"]
        if document["sha256"] != sha256_bytes(canonical_json(payload)):
            return None
        return Floors(
            parse_time(payload["time"]),
            payload["director_version"],
            payload["director_sha256"],
            payload["counters"],
            tuple(payload.get("director_keys", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
