"""A model between two passes: an ONNX graph, and how it came to be."""

from dataclasses import dataclass
from typing import Protocol

import onnx

from ommatid.contract.digests import sha256_bytes


@dataclass(frozen=True, slots=True)
class LineageStep:
    """What one pass did. `facts` is for people and for the recipe's record."""

    name: str
    sha256: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One ONNX model with its lineage; passes never change it in place."""

    model: onnx.ModelProto
    lineage: tuple[LineageStep, ...]

    @property
    def content(self) -> bytes:
        """Return the file's bytes: equal models give equal bytes."""
        return serialize(self.model)

    @property
    def sha256(self) -> str:
        """Return the digest of the file's bytes."""
        return self.lineage[-1].sha256

    @classmethod
    def source(cls, model: onnx.ModelProto, sha256: str, *facts: str) -> "Artifact":
        """Return the first artifact of a build; its digest is that of the file that was given."""
        return cls(model, (LineageStep("source", sha256, facts),))

    def derive(self, name: str, model: onnx.ModelProto, *facts: str) -> "Artifact":
        """Return the artifact that the pass `name` made of this one."""
        step = LineageStep(name, sha256_bytes(serialize(model)), facts)
        return Artifact(model, (*self.lineage, step))


class Pass(Protocol):
    """One step of a build: takes an artifact, returns one. Deterministic: the same input gives the same bytes."""

    @property
    def name(self) -> str:
        """Return the step's name in the lineage."""
        ...

    def __call__(self, artifact: Artifact) -> Artifact:
        """Return the next artifact.

        Raises:
            OmmatidError: The model cannot take this step; the operator or tensor is named.
        """
        ...


def serialize(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model, the same for equal models."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content
