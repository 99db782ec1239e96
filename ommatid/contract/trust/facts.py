"""What the release side signs of a bundle beyond its length and digest. Devices trust these facts alone."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ommatid.contract.manifest import AgentVersion, ModelName, TargetName, Version

Counter = Annotated[int, Field(strict=True, ge=1)]
Arch = Annotated[str, StringConstraints(max_length=40)]


class ReleaseFacts(BaseModel):
    """The `custom` part of one target of the release repository; later releases may add facts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: ModelName
    version: Version
    target: TargetName
    hardware: tuple[Arch, ...] = Field(min_length=1, description="machine names as `uname -m` gives them")
    release_counter: Counter = Field(description="grows with each release of this model")
    minimum_agent: AgentVersion = "0.1.0"


def release_path(facts: ReleaseFacts) -> str:
    """Return the path of a target: NAME/NAME-VERSION-TARGET.bundle."""
    return f"{facts.model}/{facts.model}-{facts.version}-{facts.target}.bundle"


def older_than(agent: str, needed: str) -> bool:
    """Tell whether an agent release is older than the needed one; a pre-release counts as its release."""
    numbers = [[int(part) for part in release.split(".")[:4] if part.isdigit()] for release in (agent, needed)]
    return numbers[0] < numbers[1]
