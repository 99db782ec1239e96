"""Do an update one step at a time: look, decide by the rules, record, act.

At every moment, a kill or a power cut leaves the old model or the new one to start from. One thread calls `tick`;
`offer`, `stop` and `watch.observe` may be called from any.
"""

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.loop_client import OrderRefusedError
from agent.trial.errors import TrialCrashError
from agent.update import rules
from agent.update.errors import DownloadStoppedError
from agent.update.journal import Journal
from agent.update.observer import Observer
from agent.update.offers import Offers
from agent.update.ports import Clock, Fetch, Fetched, Loop, Reporter, Trial, Trust
from agent.update.record import Record
from agent.update.release import Release
from agent.update.rules import Act, Policy, Step
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid.contract.messages import UpdateState as State
from ommatid.disk import Disk
from ommatid.errors import BundleError, LinkError, OmmatidError, StorageError, TrustError

PAUSE_S: Final = 5.0
"""Between two attempts at something that failed."""
OFFER_PAUSE_S: Final = 60.0
"""Between two attempts to verify a document while the release side cannot be reached."""
RETRY_S: Final = 900.0
"""After the end of an update that the world was to blame for; then the same document may start it again."""
STOP_GRACE_S: Final = 1.0
"""A trial that dies this shortly before `stop` was killed with the agent, by whoever ends it: it proves nothing."""
RESTARTS: Final = 5
"""An agent that starts so often within one probation dies of it."""

logger = logging.getLogger(__name__)


class Engine:
    """The updates of one device."""

    def __init__(
        self,
        root: Path,
        disk: Disk,
        *,
        trust: Trust,
        fetch: Fetch,
        trial: Trial,
        loop: Loop,
        reporter: Reporter,
        clock: Clock,
        policy: Policy | None = None,
    ) -> None:
        """Take the state directory, which must exist, and the parts; nothing is read or changed before `recover`."""
        self.store = Store(root, disk)
        self.slots = SlotLinks(root, disk)
        self._journal = Journal(root / "update.json", disk, reporter)
        self._trust = trust
        self._fetch = fetch
        self._trial = trial
        self._loop = loop
        self._reporter = reporter
        self._clock = clock
        self._policy = policy or Policy()
        self._settled = False
        self._storage_failures = 0
        self._not_before_s = 0.0
        self._retry_at_s = 0.0
        self._offers = Offers()
        self._observer = Observer(self.store, self.slots, loop, clock)
        self.watch = self._observer.watch
        self._interrupted: dict[str, Fetched] = {}  # downloads of this process that something cut short, by digest
        self._stopped = threading.Event()

    @property
    def record(self) -> Record:
        """What is known of the update."""
        return self._journal.record

    @property
    def idle(self) -> bool:
        """Tell whether nothing is left to do until the next offer."""
        return self._journal.clean and self.record.state.final and self._settled and not self._offers.waiting

    def recover(self) -> None:
        """Take up what the last run of the agent left; to be called once, before all else.

        Raises:
            StorageError: The disk cannot be used.
        """
        self.store.prepare()
        self.slots.prepare()
        damage = self._journal.load()
        record = self.record
        if damage is not None:
            self._journal.save(record)
            self._reporter.event("update_record_damaged", "warning", damage)
        if record.state is State.COMMITTED:
            self._raise_floor()
        if record.state is State.PROBATION:
            # What died with the agent is counted as its restart, not as a death of the loop.
            record = record.untried(State.PROBATION).untried(State.LOADED)
            record = record.model_copy(update={"restarts": record.restarts + 1})
            if record.restarts > RESTARTS:
                reason = f"the agent started {record.restarts} times during this probation"
                record = record.blamed("AttemptsError", reason, remember=True, retriable=False)
            self._journal.save(record)
        if not record.state.final:
            logger.info("update: going on with %s in state %s", _name(record), record.state)

    def offer(self, director: bytes) -> None:
        """Take a director document; `tick` will verify it. A newer one replaces one that still waits."""
        self._offers.put(director)

    def stop(self) -> None:
        """End a download soon, and do nothing more; what was done is kept."""
        self._stopped.set()

    def tick(self) -> bool:
        """Do one step; return False when there was nothing to do now."""
        if self._stopped.is_set():
            return False
        try:
            self._journal.publish()
            if self._take_offer():
                return True
            if self._clock.monotonic_s() < self._not_before_s:
                return False
            did = self._settle() if self.record.state.final else self._step()
        except StorageError as error:
            self._bear(error)
            return False
        self._storage_failures = 0
        return did

    def _step(self) -> bool:
        step = rules.decide(self.record, self._observer.facts(self.record), self._policy)
        if step.act is Act.WAIT:
            return False
        try:
            self._perform(step)
        except DownloadStoppedError:
            self._journal.save(self.record.untried(State.DOWNLOADING))
        except OmmatidError as error:
            if self.record.state.final:
                raise  # the update has ended; what failed after it is done again
            logger.info("update: %s: %s failed: %s", _name(self.record), step.act.name, error)
            follows = rules.after_error(self.record, step.act, error, self.slots.running, self._policy)
            if follows.act is Act.WAIT:
                self._pause()
            else:
                self._perform(follows)
        return True

    def _perform(self, step: Step) -> None:
        release = self.record.release
        if release is None:
            return
        match step.act:
            case Act.ENTER if step.state is not None:
                self._enter(release, step.state, by_order=step.by_order)
            case Act.FETCH:
                self._download(release)
            case Act.TRY:
                self._hold_trial(release)
            case Act.LOAD:
                self._load(release)
            case Act.SWAP:
                self._swap(release)
            case Act.COMMIT:
                self._commit(release)
            case Act.GO_BACK:
                self._go_back(step)
            case Act.END if step.state is not None:
                self._end(step, step.state)
            case _:
                return

    def _enter(self, release: Release, state: State, *, by_order: bool) -> None:
        if state is State.VERIFIED:
            if not self.store.is_whole(release.sha256):
                self._discard(release)
                return
            self.slots.stand_by(release.model, release.sha256)
        self._advance(self.record.entered(state, by_order=by_order or self.record.by_order))

    def _discard(self, release: Release) -> None:
        """Remove an installed bundle that went bad, so that it is fetched again."""
        if self.slots.of(release.model).previous == release.sha256:
            self.slots.forget_previous(release.model)
        self.slots.stand_down(release.model)
        self.store.remove(release.sha256)

    def _download(self, release: Release) -> None:
        part, part_bytes = self.store.part(release.sha256), self.store.part_bytes(release.sha256)
        self._journal.save(self.record.tried_download(part_bytes))
        self.store.check_room(release)
        interrupted = self._interrupted.pop(release.sha256, Fetched(part_bytes, 0))
        try:
            fetched = self._fetch(release, part, self._give_up_download)
        except OmmatidError:
            grown = max(0, self.store.part_bytes(release.sha256) - part_bytes)
            self._interrupted[release.sha256] = replace(interrupted, bytes_fetched=interrupted.bytes_fetched + grown)
            raise
        self.store.install(part, release)
        self.slots.stand_by(release.model, release.sha256)
        kept = fetched.bytes_before > 0  # else what was on disk was useless, and all came over the network now
        figures = {
            "bytes_before": float(interrupted.bytes_before if kept else 0),
            "bytes_fetched": float(fetched.bytes_fetched + (interrupted.bytes_fetched if kept else 0)),
        }
        self._advance(self.record.measured(figures).entered(State.VERIFIED))
        self.store.forget_download(release.sha256)

    def _give_up_download(self) -> bool:
        return self._stopped.is_set() or self._offers.waiting

    def _hold_trial(self, release: Release) -> None:
        self._journal.save(self.record.tried(State.TRIAL))
        running = self.slots.running
        verdict = self._trial(
            self.store.folder(release.sha256), self.store.folder(running) if running is not None else None
        )
        record = self.record.measured(verdict.figures)
        if verdict.passed:
            self._journal.save(record.model_copy(update={"trial_passed": True}))
            return
        if verdict.error == TrialCrashError.__name__ and self._stopped.wait(STOP_GRACE_S):
            self._journal.save(self.record.untried(State.TRIAL))  # who stopped us stopped the trial too
            return
        self._journal.save(record)
        error, reason = verdict.error or "TrialError", verdict.reason or "the trial failed"
        self._end(Step(Act.END, error=error, reason=reason, remember=True), State.REFUSED)

    def _load(self, release: Release) -> None:
        self._journal.save(self.record.tried(State.LOADED))
        load_ms = self._loop.load(self.store.folder(release.sha256), release.sha256)
        if self.record.state is not State.PROBATION:
            self._advance(self.record.measured({"load_ms": load_ms}).entered(State.LOADED))

    def _swap(self, release: Release) -> None:
        self._journal.save(self.record.tried(State.PROBATION))
        self._observer.begin_watch(release)
        self._loop.swap()
        logger.info("update: %s: sees the frames, on probation", _name(self.record))

    def _commit(self, release: Release) -> None:
        figures = self._observer.watched(release).figures
        self._journal.save(self.record.tried(State.COMMITTED).measured(figures))
        self.slots.promote(release.model, release.sha256, self.record.base)
        self._end(Step(Act.END), State.COMMITTED)

    def _go_back(self, step: Step) -> None:
        record = self.record
        if record.release is not None:
            record = record.measured(self._observer.watched(record.release).figures)
        self._journal.save(_blamed(record, step))
        try:
            self._run_current()
        except LinkError as error:
            logger.info("update: the loop is away, and will start with the old model: %s", error)
        self._end(step, State.ROLLED_BACK)

    def _end(self, step: Step, state: State) -> None:
        self._settled = False
        if state is State.FAILED or step.retriable:
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
        record = self.record.cleared() if state is State.COMMITTED else _blamed(self.record, step)
        self._journal.save(record.ended(state))
        if state is State.COMMITTED:
            self._raise_floor()
        reason = self.record.reason
        logger.info("update: %s: %s%s", _name(self.record), state, f", {reason}" if reason else "")
        self._journal.publish()

    def _advance(self, record: Record) -> None:
        self._journal.save(record)
        logger.info("update: %s: %s", _name(record), record.state)
        self._journal.publish()

    def _bear(self, error: StorageError) -> None:
        """Live with a disk that fails; when it fails again and again, end the update, if only in memory."""
        self._storage_failures += 1
        if self._storage_failures <= self._policy.attempts:
            logger.error("update: %s: %s", _name(self.record), error)
        self._pause()
        if self._storage_failures < self._policy.attempts:
            return
        record = self.record
        if not record.state.final:
            committed = record.release is not None and self.slots.running == record.release.sha256
            on_probation = record.state is State.PROBATION
            state = State.COMMITTED if committed else State.ROLLED_BACK if on_probation else State.FAILED
            if not committed:
                record = record.blamed(type(error).__name__, str(error), remember=False, retriable=True)
            self._settled = False
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
            self._journal.keep(record.ended(state))
        self._journal.publish_unsaved()
        try:
            self._run_current()
        except LinkError as away:
            logger.info("update: the loop is away: %s", away)

    def _settle(self) -> bool:
        """After an end: let the loop run what it would start from, and remove what nobody needs."""
        if self._settled:
            return False
        record = self.record
        release = record.release
        self.watch.end()
        if record.state is State.COMMITTED and release is not None:
            base = record.base
            if base and base not in {release.sha256, self.slots.of(release.model).previous} and self.store.holds(base):
                self.slots.promote(release.model, release.sha256, base)  # a failing disk kept it from being finished
            self._raise_floor()
        for model in (release.model if release is not None else None, self.slots.active):
            if model is not None:
                self.slots.stand_down(model)
        try:
            self._run_current()
            self._loop.drop()
        except OrderRefusedError as error:
            logger.warning("update: the loop cannot run what it would start from: %s", error)
        except LinkError:
            self._pause()
            return False
        wanted = {release.sha256} if release is not None and record.retriable else set[str]()
        self.store.collect(self.slots.every_digest() | wanted, next(iter(wanted), None))
        self._settled = True
        return True

    def _run_current(self) -> None:
        """Let the loop run what it would start from."""
        running, view = self.slots.running, self._loop.status()
        if view.active == running:
            return
        if running is None or view.previous == running:
            self._loop.back()
            return
        if view.loaded != running:
            self._loop.load(self.store.folder(running), running)
        self._loop.swap()

    def _raise_floor(self) -> None:
        """Forbid to go behind the previous bundle; after a step back, behind the one that runs."""
        release = self.record.release
        previous = self.slots.of(release.model).previous if release is not None else None
        if release is None or previous is None:
            return
        try:
            counter = min(self.store.release(previous).release_counter, release.release_counter)
        except BundleError as error:
            logger.warning("update: no floor from the previous bundle: %s", error)
            return
        try:
            self._trust.raise_counter_floor(release.model, counter)
        except TrustError as error:
            logger.warning("update: the floor of %s cannot be raised: %s", release.model, error)
            self._reporter.event("floor_not_raised", "error", str(error))

    def _take_offer(self) -> bool:
        """Verify a waiting document, and start what it asks for, or end what it replaces."""
        document = self._offers.due(self._clock.monotonic_s())
        if document is None:
            return False
        release, base = self.record.release, self.record
        if base.state is State.PROBATION and release is not None and self.slots.running == release.sha256:
            return False  # a commit is half done: finish it first
        try:
            assigned = self._trust.check(document)
        except TrustError as error:
            self._offers.taken(document)
            logger.warning("update: a director document was refused: %s: %s", type(error).__name__, error)
            self._reporter.refusal(type(error).__name__, str(error))
            return True
        except LinkError as error:
            logger.info("update: a director document cannot be verified now: %s", error)
            self._offers.later(document, self._clock.monotonic_s() + OFFER_PAUSE_S)
            return False
        if assigned is not None and self._cools(Release.of(assigned), assigned.rev):
            self._offers.later(document, self._retry_at_s)
        elif assigned is None or self._accept(Release.of(assigned), assigned.rev):
            self._offers.taken(document)
        return True

    def _accept(self, release: Release, rev: int) -> bool:
        """Begin an update, or leave the one under way; return False while that one is being ended."""
        record = self.record
        same = record.release == release
        if not record.state.final:
            if same:
                self._journal.save(record.model_copy(update={"desired_rev": rev}))
                return True
            self._supersede(rev)
            return False
        if same and rev == record.desired_rev and not record.retriable:
            return True
        self._not_before_s = 0.0
        self._advance(record.offered(release, rev, self.slots.of(release.model).current))
        return True

    def _cools(self, release: Release, rev: int) -> bool:
        """Tell whether this very document failed too short a time ago to try it again."""
        record = self.record
        again = record.state.final and record.retriable and (record.release, record.desired_rev) == (release, rev)
        return again and self._clock.monotonic_s() < self._retry_at_s

    def _supersede(self, rev: int) -> None:
        step = Step(Act.END, error="SupersededError", reason=f"document {rev} asks for another model", retriable=True)
        if self.record.state is State.PROBATION:
            self._go_back(step)
        else:
            self._end(step, State.FAILED)

    def _pause(self) -> None:
        self._not_before_s = self._clock.monotonic_s() + PAUSE_S


def _blamed(record: Record, step: Step) -> Record:
    if step.error is None:
        return record
    return record.blamed(step.error, step.reason or "", remember=step.remember, retriable=step.retriable)


def _name(record: Record) -> str:
    release = record.release
    return f"{release.model} {release.version}" if release is not None else "no model"
