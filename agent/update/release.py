"""One signed release, as the engine keeps it: in its record, and beside the files of an installed bundle."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from ommatid.contract.digests import Sha256
from ommatid.contract.manifest import ModelName, TargetName, Version
from ommatid.contract.messages import ModelRef


class Assigned(Protocol):
    """What the trust rules let through: facts of the release side, chosen by the director."""

    @property
    def rev(self) -> int:
        """The number of the director document, higher than that of any before."""
        ...

    @property
    def path(self) -> str:
        """The release target, NAME/NAME-VERSION-TARGET.bundle."""
        ...

    @property
    def length(self) -> int:
        """The bundle's size in bytes."""
        ...

    @property
    def sha256(self) -> str:
        """The bundle's digest."""
        ...

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> str:
        """The model's version."""
        ...

    @property
    def target(self) -> str:
        """What it was built for."""
        ...

    @property
    def release_counter(self) -> int:
        """The place in the order of this model's releases."""
        ...


class Release(BaseModel):
    """The signed facts of one bundle."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)

    path: str
    length: PositiveInt
    sha256: Sha256
    model: ModelName
    version: Version
    target: TargetName
    release_counter: NonNegativeInt

    @classmethod
    def of(cls, assigned: Assigned) -> "Release":
        """Keep the facts of an assignment."""
        return cls.model_validate(assigned)

    @property
    def ref(self) -> ModelRef:
        """Return the release as messages name it."""
        return ModelRef(
            name=self.model,
            version=self.version,
            target=self.target,
            digest=self.sha256,
            release_counter=self.release_counter,
        )
