from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.loop_client import OrderRefusedError
from agent.update.errors import DownloadRefusedError
from agent.update.probation import Sight, Watch, Watched
from agent.update.record import Record
from agent.update.release import Release
from agent.update.rules import Act, Facts, LoopFacts, Policy, Step, after_error, decide, judge
from ommatid.contract.messages import UpdateState
from ommatid.errors import BackendError, DigestMismatchError, LinkError, OmmatidError, StorageError

POLICY = Policy()
OLD, NEW = "0" * 64, "1" * 64
RELEASE = Release(
    path="d/d-2-fp32.bundle", length=10, sha256=NEW, model="d", version="2", target="fp32", release_counter=2
)
GOOD = Watched(seconds=20, frames=100, with_objects=90, p50_ms=10, p99_ms=12)
ERRORS: list[OmmatidError] = [
    LinkError("away"),
    StorageError("full"),
    BackendError("no"),
    DigestMismatchError("f", "a", "b"),
    DownloadRefusedError("404"),
    OrderRefusedError("load", "BackendError", "no such operator", None),
    OrderRefusedError("load", "LoadingError", "busy", None),
]

loops = st.one_of(
    st.none(),
    st.builds(
        LoopFacts, st.sampled_from([None, OLD, NEW]), st.sampled_from([None, OLD, NEW]), loading=st.just(value=False)
    ),
)
watches = st.builds(
    Watched,
    seconds=st.floats(0, 2000),
    frames=st.integers(0, 200),
    errors=st.integers(0, 3),
    saturated=st.integers(0, 200),
    with_objects=st.integers(0, 200),
    p50_ms=st.floats(1, 1000),
    p99_ms=st.floats(1, 1000),
    base_frames=st.integers(0, 300),
    base_p50_ms=st.floats(1, 1000),
    base_p99_ms=st.floats(1, 1000),
    base_presence=st.floats(0, 1),
)
facts = st.builds(
    Facts,
    running=st.sampled_from([None, OLD]),
    previous=st.sampled_from([None, OLD, NEW]),
    installed=st.booleans(),
    loop=loops,
    loop_away_s=st.floats(0, 300),
    watched=st.one_of(st.sampled_from([Watched(), GOOD, replace(GOOD, errors=1)]), watches),
)


def carried_out(record: Record, step: Step) -> Record:  # noqa: PLR0911 (a table, one line an act)
    """Do a step on paper, when all goes well."""
    match step.act:
        case Act.ENTER:
            assert step.state is not None
            return record.entered(step.state, by_order=step.by_order or record.by_order)
        case Act.FETCH:
            return record.tried_download(0).entered(UpdateState.VERIFIED)
        case Act.TRY:
            return record.tried(UpdateState.TRIAL).model_copy(update={"trial_passed": True})
        case Act.LOAD:
            loaded = record.tried(UpdateState.LOADED)
            return loaded if record.state is UpdateState.PROBATION else loaded.entered(UpdateState.LOADED)
        case Act.SWAP:
            return record.tried(UpdateState.PROBATION)
        case Act.COMMIT:
            return record.tried(UpdateState.COMMITTED).cleared().ended(UpdateState.COMMITTED)
        case Act.GO_BACK:
            return blamed(record, step).ended(UpdateState.ROLLED_BACK)
        case Act.END:
            assert step.state is not None
            return blamed(record, step).ended(step.state)
        case _:
            return record


def failed(record: Record, step: Step, error: OmmatidError) -> Record:
    """Do a step on paper that fails: it was counted before."""
    counted = {
        Act.TRY: UpdateState.TRIAL,
        Act.LOAD: UpdateState.LOADED,
        Act.SWAP: UpdateState.PROBATION,
        Act.COMMIT: UpdateState.COMMITTED,
    }
    if step.act is Act.FETCH:
        record = record.tried_download(0)
    elif step.act in counted:
        record = record.tried(counted[step.act])
    else:
        return carried_out(record, step)
    return carried_out(record, after_error(record, step.act, error, OLD, POLICY))


def blamed(record: Record, step: Step) -> Record:
    if step.error is None:
        return record
    return record.blamed(step.error, step.reason or "", remember=step.remember, retriable=step.retriable)


@given(st.lists(st.tuples(facts, st.one_of(st.none(), st.sampled_from(ERRORS))), max_size=30))
def test_whatever_happens_an_update_ends_and_none_is_committed_without_probation(
    story: list[tuple[Facts, OmmatidError | None]],
) -> None:
    record = Record().offered(RELEASE, 1, OLD)
    seen = [record.state]

    for fact, error in story:
        step = decide(record, fact, POLICY)
        if step.act is Act.COMMIT:
            assert record.state is UpdateState.PROBATION
            assert fact.loop is not None
            assert fact.loop.active == NEW
            assert fact.watched.errors == 0
        if step.act is Act.SWAP:
            assert record.trial_passed or record.by_order
        record = failed(record, step, error) if error is not None else carried_out(record, step)
        seen.append(record.state)
    # a world that stands still at last: nothing answers any more
    for _ in range(20):
        silence = Facts(OLD, loop=None, loop_away_s=1000.0)
        record = failed(record, decide(record, silence, POLICY), LinkError("away"))

    assert record.state.final
    if record.state is UpdateState.COMMITTED:
        assert UpdateState.PROBATION in seen
    if record.remember:
        assert record.failed == {NEW: 2}
    if record.state in {UpdateState.REFUSED, UpdateState.FAILED, UpdateState.ROLLED_BACK}:
        assert record.error
        assert record.reason


@given(facts, st.integers(0, 5), st.integers(0, 5))
def test_a_digest_that_failed_is_tried_only_for_a_newer_counter(fact: Facts, failed_at: int, counter: int) -> None:
    release = RELEASE.model_copy(update={"release_counter": counter})
    record = Record(failed={NEW: failed_at}).offered(release, 1, OLD)

    step = decide(record, fact, POLICY)

    if counter > failed_at:
        assert step.act is Act.ENTER
    else:
        assert (step.act, step.state, step.error) == (Act.END, UpdateState.REFUSED, "FailedBeforeError")


@given(watches)
def test_no_model_passes_probation_with_an_error_or_too_few_frames(watched: Watched) -> None:
    verdict = judge(watched, POLICY, by_order=False)

    if watched.errors or watched.frames < POLICY.probation_frames or watched.seconds < POLICY.probation_s:
        assert verdict is None or verdict.act is Act.GO_BACK
    if watched.seconds >= POLICY.probation_longest_s:
        assert verdict is not None


def test_a_probation_judges_latency_by_tail_and_median_together() -> None:
    base = replace(GOOD, base_frames=300, base_p50_ms=10.0, base_p99_ms=12.0, base_presence=1.0)

    assert judge(replace(base, p99_ms=500.0), POLICY, by_order=False) == Step(Act.COMMIT)
    assert judge(replace(base, p50_ms=45.0, p99_ms=60.0), POLICY, by_order=False) == Step(Act.COMMIT)
    slow = judge(replace(base, p50_ms=45.0, p99_ms=500.0), POLICY, by_order=False)
    assert slow is not None
    assert slow.act is Act.GO_BACK
    assert slow.reason == "p99 is 500.0 ms, median 45.0 ms; the old model's were 12.0 and 10.0"


def test_a_probation_suspects_noise_and_blindness() -> None:
    noise = judge(replace(GOOD, saturated=51), POLICY, by_order=False)
    blind = judge(replace(GOOD, with_objects=0, base_frames=300, base_presence=1.0), POLICY, by_order=False)
    quiet_scene = judge(replace(GOOD, with_objects=0, base_frames=300, base_presence=0.5), POLICY, by_order=False)

    assert noise is not None
    assert "noise" in (noise.reason or "")
    assert blind is not None
    assert "nothing found" in (blind.reason or "")
    assert quiet_scene == Step(Act.COMMIT)


def test_a_commit_that_was_cut_off_is_finished() -> None:
    record = Record().offered(RELEASE, 1, OLD).entered(UpdateState.PROBATION)

    assert decide(record, Facts(running=NEW), POLICY) == Step(Act.COMMIT)


def test_a_watch_counts_the_new_model_apart_from_the_old() -> None:
    watch = Watch()
    for _ in range(10):
        watch.observe(Sight(OLD, 10.0, objects=1))
    watch.observe(Sight(None, 99.0))
    watch.begin(NEW, now_s=100.0, max_objects=5)
    watch.observe(Sight(OLD, 12.0))
    watch.observe(Sight(NEW, 20.0, objects=5))
    watch.observe(Sight(NEW, 0.0, error="an output is not finite"))

    watched = watch.watched(NEW, now_s=103.0)

    assert (watched.seconds, watched.frames, watched.errors, watched.saturated) == (3.0, 2, 1, 1)
    assert (watched.p50_ms, watched.base_frames, watched.base_p99_ms) == (20.0, 11, 12.0)
    assert watched.base_presence == 10 / 11
    assert watch.watched(OLD, now_s=103.0) == Watched()
