"""Which devices a build is for; the facts are in targets.toml."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ommatid.errors import BadInputError


class Target(BaseModel):
    """One kind of device, and how a model is made for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arch: tuple[Literal["aarch64", "x86_64"], ...] = Field(min_length=1)
    formats: tuple[Literal["onnx"], ...] = Field(min_length=1)
    scheme: Literal["U8S8", "float"]
    reason: str

    @property
    def quantized(self) -> bool:
        """Tell whether calibration images are needed."""
        return self.scheme != "float"


@cache
def all_targets() -> dict[str, Target]:
    """Return every target by name."""
    document = tomllib.loads(resources.files("optimizer").joinpath("targets.toml").read_text(encoding="utf-8"))
    return {name: Target(name=name, **facts) for name, facts in document.items()}


def target(name: str) -> Target:
    """Return one target.

    Raises:
        BadInputError: There is none of that name.
    """
    try:
        return all_targets()[name]
    except KeyError:
        raise BadInputError(f"no target {name}", hint=f"known targets: {', '.join(all_targets())}") from None
