"""The rules of an update, pure: from what is recorded and what is so, to the one next step.

    offered → downloading → verified → trial → loaded → probation → committed
       │           │           │         │        │          └→ rolled_back
       └───────────┴───────────┴─────────┴────────┴→ refused, failed

`refused` is a model's own fault, or a rule's; `failed` is the world's. Every way ends: each act is counted durably
before it is done, and each wait has a limit. docs/updates.md says it with words.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from agent.loop_client import OrderRefusedError
from agent.update.errors import DownloadRefusedError
from agent.update.probation import Watched
from agent.update.record import Record
from ommatid.contract.messages import UpdateState as State
from ommatid.errors import BundleError, LinkError, OmmatidError


class Act(Enum):
    """What the engine can do."""

    REST = auto()  # the update has ended
    WAIT = auto()  # ask again a little later
    ENTER = auto()  # record another state
    FETCH = auto()  # download, check and install
    TRY = auto()  # hold a trial
    LOAD = auto()  # load into the loop, beside the running model
    SWAP = auto()  # let it see the frames
    COMMIT = auto()  # make it what the loop starts from
    GO_BACK = auto()  # the old model sees the frames again
    END = auto()  # record the end


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing to do. `state` is where ENTER and END lead; the rest says why a bad end is one."""

    act: Act
    state: State | None = None
    error: str | None = None
    reason: str | None = None
    remember: bool = False
    retriable: bool = False
    by_order: bool = False


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What the loop holds, by digest."""

    active: str | None = None
    loaded: str | None = None
    loading: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so, beyond the record.

    running: what the loop starts from. installed: the release is in the store, whole.
    loop: None when it does not answer, for `loop_away_s` now.
    """

    running: str | None = None
    previous: str | None = None
    installed: bool = False
    part_bytes: int = 0
    loop: LoopFacts | None = None
    loop_away_s: float = 0.0
    watched: Watched = field(default_factory=Watched)


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is tried, and how much is asked of a new model.

    attempts: of each act, without progress. swaps: a loop that died so often under the new model dies of it.
    probation_frames and probation_s: both must pass; after `probation_longest_s` without them it is over.
    latency_ratio: p99 may be so many times the old one's. A busy board moves p99 alone, so the median must have risen
        too, by half of that.
    saturated_share: of frames with as many objects as the manifest allows.
    steady_presence: an old model that found something in so many of its frames makes "never anything" suspect.
    """

    attempts: int = 3
    swaps: int = 2
    loop_patience_s: float = 180.0
    probation_frames: int = 60
    probation_s: float = 10.0
    probation_longest_s: float = 900.0
    errors: int = 0
    latency_ratio: float = 4.0
    latency_slack_ms: float = 20.0
    saturated_share: float = 0.5
    steady_presence: float = 0.95
    steady_frames: int = 100


@dataclass(frozen=True, slots=True)
class _Blame:
    """What went wrong: the class of an error, and one sentence."""

    error: str
    reason: str


_BUSY: Final = "LoadingError"
"""The loop's answer to `load` while it loads."""

REST: Final = Step(Act.REST)
WAIT: Final = Step(Act.WAIT)


def decide(record: Record, facts: Facts, policy: Policy) -> Step:  # noqa: PLR0911 (a table, one line a state)
    """Return the next step of the recorded update."""
    release = record.release
    if release is None or record.state.final:
        return REST
    match record.state:
        case State.OFFERED:
            return _offered(record, release.sha256, facts)
        case State.DOWNLOADING:
            return _downloading(record, facts, policy)
        case State.VERIFIED | State.TRIAL if not facts.installed:
            return _enter(State.DOWNLOADING)
        case State.VERIFIED:
            return _load(record, facts, policy) if record.by_order else _enter(State.TRIAL)
        case State.TRIAL if record.trial_passed:
            return _load(record, facts, policy)
        case State.TRIAL:
            return _trial(record, policy)
        case State.LOADED | State.SHADOW:
            return _enter(State.PROBATION)
        case _:
            return _probation(record, release.sha256, facts, policy)


def after_error(  # noqa: PLR0911 (a table, one line a kind of error)
    record: Record, act: Act, error: OmmatidError, running: str | None, policy: Policy
) -> Step:
    """Return what follows from an act that failed; `running` is what the loop starts from."""
    blame = _Blame(type(error).__name__, str(error))
    if isinstance(error, OrderRefusedError):
        blame = _Blame(error.error, error.reason)
    if record.state is State.PROBATION:
        return _after_error_in_probation(record, act, error, blame, running, policy)
    match error:
        case OrderRefusedError() if error.error == _BUSY:
            return WAIT
        case BundleError() | OrderRefusedError():
            return _end(State.REFUSED, blame, remember=True)
        case DownloadRefusedError():
            return _end(State.FAILED, blame)
        case LinkError() if act is Act.LOAD:
            return WAIT
        case _ if act is Act.TRY and record.attempts.get(State.TRIAL, 0) < policy.attempts:
            return WAIT
        case _:
            return _end(State.FAILED, blame, retriable=True)


def _after_error_in_probation(
    record: Record, act: Act, error: OmmatidError, blame: _Blame, running: str | None, policy: Policy
) -> Step:
    if act is Act.LOAD and isinstance(error, OrderRefusedError) and error.error != _BUSY:
        return _back(blame)
    if act is not Act.COMMIT or record.attempts.get(State.COMMITTED, 0) < policy.attempts:
        return WAIT
    if record.release is not None and running == record.release.sha256:
        return _end(State.COMMITTED)  # it is what the loop starts from; only the tidying up fails
    return _back(blame, remember=False)


def judge(watched: Watched, policy: Policy, *, by_order: bool) -> Step | None:
    """Return the verdict of a probation: COMMIT, GO_BACK with a reason, or None while it is not decided.

    A bundle that was committed here before and is ordered back has only to give one frame without an error.
    """
    if watched.errors > policy.errors:
        return _back(_Blame("ModelError", f"{watched.errors} of {watched.frames} frames failed: {watched.last_error}"))
    if by_order:
        enough = watched.frames > watched.errors
    else:
        enough = watched.frames >= policy.probation_frames and watched.seconds >= policy.probation_s
    if not enough:
        if watched.seconds < policy.probation_longest_s:
            return None
        reason = f"only {watched.frames} frames in {watched.seconds:.0f} s; {policy.probation_frames} are asked for"
        return _back(_Blame("NotEnoughFramesError", reason), remember=False)
    if not by_order and (suspicion := _suspicion(watched, policy)):
        return _back(_Blame("ProbationError", suspicion))
    return Step(Act.COMMIT)


def _suspicion(watched: Watched, policy: Policy) -> str | None:
    """Say what is wrong with a model that raises no error."""
    if watched.saturated > policy.saturated_share * watched.frames:
        return f"{watched.saturated} of {watched.frames} frames have as many objects as the manifest allows: noise"
    steady = watched.base_frames >= policy.steady_frames and watched.base_presence >= policy.steady_presence
    if steady and watched.with_objects == 0:
        return (
            f"nothing found in {watched.frames} frames; "
            f"the old model found something in {watched.base_presence:.0%} of {watched.base_frames}"
        )
    if watched.p50_ms is None or watched.p99_ms is None or watched.base_p50_ms is None or watched.base_p99_ms is None:
        return None
    slow_tail = watched.p99_ms > policy.latency_ratio * watched.base_p99_ms + policy.latency_slack_ms
    slow_median = watched.p50_ms > policy.latency_ratio / 2 * watched.base_p50_ms
    if slow_tail and slow_median:
        return (
            f"p99 is {watched.p99_ms:.1f} ms, median {watched.p50_ms:.1f} ms; the old model's were "
            f"{watched.base_p99_ms:.1f} and {watched.base_p50_ms:.1f}"
        )
    return None


def _offered(record: Record, digest: str, facts: Facts) -> Step:
    if digest == facts.running:
        return _end(State.COMMITTED)
    counter = record.failed.get(digest)
    if counter is not None and record.release is not None and record.release.release_counter <= counter:
        return _end(
            State.REFUSED, _Blame("FailedBeforeError", f"{digest[:12]} failed here before; push a newer release")
        )
    if digest == facts.previous and facts.installed:
        return Step(Act.ENTER, State.VERIFIED, by_order=True)
    return _enter(State.DOWNLOADING)


def _downloading(record: Record, facts: Facts, policy: Policy) -> Step:
    if facts.installed:
        return _enter(State.VERIFIED)
    attempts = record.attempts.get(State.DOWNLOADING, 0)
    if attempts >= policy.attempts and facts.part_bytes <= record.part_bytes:
        reason = f"the download was cut off {attempts} times without progress"
        return _end(State.FAILED, _Blame("AttemptsError", reason), retriable=True)
    return Step(Act.FETCH)


def _trial(record: Record, policy: Policy) -> Step:
    attempts = record.attempts.get(State.TRIAL, 0)
    if attempts >= policy.attempts:
        reason = f"{attempts} trials did not end; the device may die of it"
        return _end(State.REFUSED, _Blame("AttemptsError", reason), remember=True)
    return Step(Act.TRY)


def _load(record: Record, facts: Facts, policy: Policy) -> Step:
    attempts = record.attempts.get(State.LOADED, 0)
    if attempts >= policy.attempts:
        reason = f"the loop went away {attempts} times while it loaded this model"
        return _end(State.REFUSED, _Blame("AttemptsError", reason), remember=True)
    if facts.loop is not None:
        return WAIT if facts.loop.loading else Step(Act.LOAD)
    if facts.loop_away_s > policy.loop_patience_s:
        reason = f"no loop to load into for {facts.loop_away_s:.0f} s"
        return _end(State.FAILED, _Blame("LinkError", reason), retriable=True)
    return WAIT


def _probation(record: Record, digest: str, facts: Facts, policy: Policy) -> Step:
    if facts.running == digest:
        return Step(Act.COMMIT)  # a commit was cut off after its first durable change
    if record.error is not None:
        return _back(_Blame(record.error, record.reason or ""), remember=record.remember)
    if facts.loop is None:
        if facts.loop_away_s <= policy.loop_patience_s:
            return WAIT
        return _back(_Blame("LinkError", f"the loop did not come back in {facts.loop_away_s:.0f} s"))
    if facts.loop.active == digest:
        return judge(facts.watched, policy, by_order=record.by_order) or WAIT
    return _swap(record, digest, facts.loop, policy)


def _swap(record: Record, digest: str, loop: LoopFacts, policy: Policy) -> Step:
    """Swap for the first time, or once more after the loop died: it always starts with the old model."""
    swaps = record.attempts.get(State.PROBATION, 0)
    if swaps >= policy.swaps:
        return _back(_Blame("LoopDiedError", f"the loop died {swaps} times under this model"))
    if loop.loaded == digest:
        return Step(Act.SWAP)
    if loop.loading:
        return WAIT
    loads = record.attempts.get(State.LOADED, 0)
    if loads > policy.attempts:
        return _back(_Blame("LoopDiedError", f"the loop lost this model after each of {loads} loads"))
    return Step(Act.LOAD)


def _enter(state: State) -> Step:
    return Step(Act.ENTER, state)


def _end(state: State, blame: _Blame | None = None, *, remember: bool = False, retriable: bool = False) -> Step:
    error, reason = (blame.error, blame.reason) if blame else (None, None)
    return Step(Act.END, state, error, reason, remember, retriable)


def _back(blame: _Blame, *, remember: bool = True) -> Step:
    return Step(Act.GO_BACK, error=blame.error, reason=blame.reason, remember=remember, retriable=not remember)
