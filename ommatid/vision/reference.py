"""What the training images look like: the profile that travels in a bundle as reference.json.

It answers one question: is this camera inside the range that the model has seen? A distribution test cannot: on real
clips each healthy camera differs from any set of training images (population stability index 4-8 where 0.2 counts
as drift), so the only thing asked is whether a frame lies between the 1st and the 99th percentile.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class SignalProfile:
    """One signal over all training images that had it."""

    images: int
    mean: float
    sd: float
    p1: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class ReferenceProfile:
    """Every signal over the training images."""

    images: int
    signals: Mapping[str, SignalProfile]

    @classmethod
    def of(cls, measured: Iterable[Mapping[str, float]]) -> Self:
        """Summarise the signals of some pictures, as `ommatid.vision.signals.measure` gives them."""
        rows = list(measured)
        names = sorted({name for row in rows for name in row})
        return cls(len(rows), {name: _profile([row[name] for row in rows if name in row]) for name in names})

    def encode(self) -> bytes:
        """Return the file's bytes; six digits, so that one set of images gives one file."""
        signals = {
            name: {key: value if key == "images" else round(value, 6) for key, value in asdict(profile).items()}
            for name, profile in self.signals.items()
        }
        document = {"schema_version": SCHEMA, "kind": "quality-profile", "images": self.images, "signals": signals}
        return json.dumps(document, sort_keys=True, indent=1).encode()

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read what `encode` wrote; fields that a newer release added are ignored.

        Raises:
            ValueError: It is not a profile.
        """
        try:
            document: Any = json.loads(content)
            if document["kind"] != "quality-profile" or document["schema_version"] != SCHEMA:
                raise ValueError("not a quality profile of a schema that this release knows")
            return cls(
                int(document["images"]), {str(name): _read(entry) for name, entry in document["signals"].items()}
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a quality profile: {error!r}") from error


def _profile(values: list[float]) -> SignalProfile:
    array = np.array(values, np.float64)
    p1, p50, p99 = (float(value) for value in np.percentile(array, [1, 50, 99]))
    return SignalProfile(len(values), float(array.mean()), float(array.std()), p1, p50, p99)


def _read(entry: Mapping[str, Any]) -> SignalProfile:
    values = {key: float(entry[key]) for key in ("mean", "sd", "p1", "p50", "p99")}
    if not all(np.isfinite(value) for value in values.values()):
        raise ValueError("a profile holds a value that is no finite number")
    return SignalProfile(images=int(entry["images"]), **values)
