"""What a person asks of a build."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from ommatid.contract.digests import canonical_json, sha256_bytes
from ommatid.contract.manifest import ModelName, Task, Version
from ommatid.errors import BadInputError, StorageError
from optimizer.preprocessing import Color, Preprocessing, Resize, Size
from optimizer.targets import Target

BUNDLE_SUFFIX: Final = ".bundle"


@dataclass(frozen=True, slots=True)
class Stated:
    """What was said about the picture and the results; None is left to the defaults of the decode family."""

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    color: Color | None = None
    resize: Resize | None = None
    input_size: Size | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class GateRule:
    """What a build may lose. `max_drop` asks for class folders, and then decides in place of the agreement."""

    min_agreement: float = 0.97
    max_drop: float | None = None
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many images are taken: `limit` spread evenly, or every `stride`-th, `limit` at most."""

    limit: int = 60
    stride: int | None = None

    def positions(self, count: int) -> list[int]:
        """Return which of `count` images are taken, in order."""
        if self.stride is not None:
            return list(range(0, count, self.stride))[: self.limit]
        taken = min(self.limit, count)
        return [index * count // taken for index in range(taken)]


@dataclass(frozen=True, slots=True)
class Effort:
    """How far the search goes."""

    search: bool = True
    per_channel: bool = True
    max_float_layers: int = 8
    time_budget_s: float = 600.0


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build, as it was asked for."""

    model: Path
    target: Target
    decode: str
    validate: str
    calibrate: str | None
    labels: Path | None
    name: str
    version: str
    output: Path
    stated: Stated = field(default_factory=Stated)
    gate: GateRule = field(default_factory=GateRule)
    effort: Effort = field(default_factory=Effort)
    sampling: Sampling = field(default_factory=Sampling)


def recipe_sha256(request: BuildRequest, preprocessing: Preprocessing, task: Task) -> str:
    """Return the digest of everything that decides the result beside model and images; the time budget does not."""
    effort, gate, source = request.effort, request.gate, preprocessing
    recipe = {
        "target": request.target.model_dump(mode="json", exclude={"reason"}),
        "task": task.model_dump(mode="json"),
        "preprocessing": [source.mean, source.scale, source.color, source.resize, source.pad_value],
        "gate": [gate.min_agreement, gate.max_drop, gate.enforced],
        "effort": [effort.search, effort.per_channel, effort.max_float_layers],
        "sampling": [request.sampling.limit, request.sampling.stride],
    }
    return sha256_bytes(canonical_json(recipe))


def bundle_path(request: BuildRequest) -> Path:
    """Return where the bundle goes.

    Raises:
        BadInputError: The name or version is not one, the folder is missing, or a file is there already.
        StorageError: Nothing can be written there.
    """
    for value, kind, option, hint in (
        (request.name, ModelName, "--name", "lower-case letters, digits, `.`, `_` and `-`, up to 63"),
        (request.version, Version, "--version", "letters, digits, `.`, `+` and `_`, up to 42; no hyphen"),
    ):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise BadInputError(f"{option} {value}: not a valid value", hint=hint) from None
    path = request.output
    if path.suffix != BUNDLE_SUFFIX or path.is_dir():
        if not path.is_dir():
            raise BadInputError(f"{path}: no such folder", hint=f"make it, or name a file that ends in {BUNDLE_SUFFIX}")
        path /= f"{request.name}-{request.version}-{request.target.name}.bundle"
    if not path.parent.is_dir():
        raise BadInputError(f"{path.parent}: no such folder", hint="make it, or name another with -o")
    if path.exists():
        raise BadInputError(f"{path}: exists already", hint="remove it, or choose another --version or -o")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StorageError(f"{path.parent}: nothing can be written there", hint="name another folder with -o")
    return path
