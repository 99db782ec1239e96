"""What the rollout rules look at: plain values, loaded from the database and never changed by a rule."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from fleet_server.rollouts.stages import DEFAULT_STAGES, Amount, parse_amount, parse_stages
from ommatid.contract.messages import UpdateState

DEFAULT_SOAK_S: Final = 300.0
DEFAULT_MAX_FAILURES: Final = "10%"
DEFAULT_MIN_SUCCESS: Final = "90%"
DEFAULT_PATIENCE_S: Final = 900.0


class RolloutState(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    ABORTED = "aborted"

    @property
    def active(self) -> bool:
        """Tell whether it still wants something: only one rollout of a tenant may."""
        return self in {RolloutState.RUNNING, RolloutState.PAUSED}


class MemberState(StrEnum):
    """What became of the offer to one device; between offer and end these are the device's own update states."""

    OFFERED = "offered"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    TRIAL = "trial"
    LOADED = "loaded"
    SHADOW = "shadow"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    FAILED = "failed"
    RETURNING = "returning"
    RETURNED = "returned"

    @property
    def failure(self) -> bool:
        """Tell whether the device could not or would not take the release."""
        return self in _FAILURES

    @property
    def pending(self) -> bool:
        """Tell whether the device has the offer and has not ended it."""
        return self not in _ENDED


_FAILURES = frozenset({MemberState.ROLLED_BACK, MemberState.REFUSED, MemberState.FAILED})
_ENDED = _FAILURES | {MemberState.COMMITTED, MemberState.RETURNING, MemberState.RETURNED}


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """One build of the model version that a rollout carries, and what it demands of a device."""

    id: int
    target: str
    digest: str
    hardware: tuple[str, ...]
    minimum_agent: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How careful a rollout is."""

    stages: tuple[Amount, ...] = field(default_factory=lambda: parse_stages(DEFAULT_STAGES))
    soak_s: float = DEFAULT_SOAK_S
    max_failures: Amount = field(default_factory=lambda: parse_amount(DEFAULT_MAX_FAILURES, "--max-failures"))
    min_success: Amount = field(default_factory=lambda: parse_amount(DEFAULT_MIN_SUCCESS, "--min-success"))
    patience_s: float = DEFAULT_PATIENCE_S


@dataclass(frozen=True, slots=True)
class Member:
    """A device that a rollout has made an offer to.

    Times are seconds since the epoch. `has_previous` tells whether it was assigned a release before this one.
    """

    stage: int
    state: MemberState
    digest: str
    offered_at: float
    ended_at: float | None = None
    has_previous: bool = True


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device of the tenant, as the database knows it now.

    `assigned` tells whether the director now names what this rollout offered it. `arch` and `agent` are None until
    its first hello. `running` is the digest of the model it runs, and None while an update goes on.
    """

    id: str
    online: bool
    arch: str | None
    agent: str | None
    tags: frozenset[str] = frozenset()
    assigned: bool = False
    running: str | None = None
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What a rollout brings, and to whom: the builds of one model version, and the tags that a device must have."""

    releases: tuple[ReleaseFacts, ...]
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """One rollout. `standing` marks the newest finished one while none is active: newcomers still join it.

    `watched_from` is when the stage began, or was resumed: silent devices are waited for from then on.
    """

    salt: str
    selection: Selection
    policy: Policy
    state: RolloutState
    stage: int
    watched_from: float = 0.0
    standing: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The release that suits a device, or why none does; `final` when waiting will not change the answer."""

    release: ReleaseFacts | None
    reason: str = ""
    final: bool = False


def judge(device: DeviceFacts, selection: Selection) -> Verdict:
    """Tell which release a device can take, and if none, why: said before it fails."""
    if missing := sorted(selection.tags - device.tags):
        return Verdict(None, f"has no tag {', '.join(missing)}", final=True)
    if device.arch is None or device.agent is None:
        return Verdict(None, "has not said hello yet")
    fitting = [release for release in selection.releases if device.arch in release.hardware]
    if not fitting:
        made_for = sorted({hardware for release in selection.releases for hardware in release.hardware})
        return Verdict(None, f"is {device.arch}; the release is for {' or '.join(made_for) or 'nothing'}", final=True)
    for release in fitting:
        if version_key(device.agent) >= version_key(release.minimum_agent):
            return Verdict(release)
    needed = min((release.minimum_agent for release in fitting), key=version_key)
    return Verdict(None, f"runs agent {device.agent}; needs agent {needed} or later")


def version_key(version: str) -> tuple[int, ...]:
    """Return the leading dotted numbers of a version, for comparison: `0.2.0.dev1` counts as 0.2.0."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def follow(current: MemberState, reported: UpdateState) -> MemberState:
    """Return the state of an offer after the device's next report about it.

    An end is an end, whatever late reports say, with one exception: a device may still give up what it had committed.
    """
    if reported is UpdateState.IDLE:
        return current
    state = MemberState(reported.value)
    if current.pending or (current is MemberState.COMMITTED and state.failure):
        return state
    return current
