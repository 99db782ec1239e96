"""What may be installed: only what both sides name, on the hardware it is signed for, and nothing too old."""

from dataclasses import dataclass

from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from ommatid.contract.trust.errors import (
    AgentTooOldError,
    MetadataFormatError,
    NotReleasedError,
    OlderReleaseError,
    WrongHardwareError,
)
from ommatid.contract.trust.facts import ReleaseFacts, older_than
from ommatid.contract.trust.floors import Floors


@dataclass(frozen=True, slots=True)
class Assignment:
    """What this device shall run: named by the director, and signed by the release side, which gives every fact."""

    rev: int
    path: str
    length: int
    sha256: str
    model: str
    version: str
    target: str
    release_counter: int


def assign(
    rev: int, directed: TargetFile, released: TargetFile | None, *, hardware: str, agent: str, floors: Floors
) -> Assignment:
    """Match what the director names with what the release side signed.

    Args:
        rev: The version of the director document.
        directed: The director's entry; only its path, length and digest count.
        released: The release side's entry of that path, if there is one.
        hardware: This device's machine name, as `uname -m`.
        agent: This agent's version.
        floors: The counters behind which this device may not go back.

    Raises:
        TrustError: The subclass says why this release is refused.
    """
    path = directed.path
    if released is None:
        raise NotReleasedError(path, "the release side never signed it")
    if (released.length, released.hashes) != (directed.length, directed.hashes):
        raise NotReleasedError(path, "the release side signed other content under this name")
    facts = _facts(released)
    if hardware not in facts.hardware:
        raise WrongHardwareError(path, hardware, ", ".join(facts.hardware))
    if older_than(agent, facts.minimum_agent):
        raise AgentTooOldError(path, facts.minimum_agent, agent)
    floor = floors.counters.get(facts.model, 0)
    if facts.release_counter < floor:
        raise OlderReleaseError(path, facts.release_counter, floor)
    return Assignment(
        rev=rev,
        path=path,
        length=released.length,
        sha256=released.hashes["sha256"],
        model=facts.model,
        version=facts.version,
        target=facts.target,
        release_counter=facts.release_counter,
    )


def _facts(released: TargetFile) -> ReleaseFacts:
    if "sha256" not in released.hashes:
        raise MetadataFormatError(released.path, "no sha256 is signed for it")
    try:
        return ReleaseFacts.model_validate(released.custom or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MetadataFormatError(released.path, f"release facts: {place}: {first['msg']}") from error
