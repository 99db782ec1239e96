"""What the rules are told: how slots, store, loop and probation stand now."""

from agent.update.ports import Clock, Loop
from agent.update.probation import Watch, Watched
from agent.update.record import Record
from agent.update.release import Release
from agent.update.rules import Facts, LoopFacts
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid.contract.messages import UpdateState as State
from ommatid.errors import BundleError, LinkError


class Observer:
    """Looks, and begins a watch that a restart cut off; `watch.observe` may be called from any thread."""

    def __init__(self, store: Store, slots: SlotLinks, loop: Loop, clock: Clock) -> None:
        self.watch = Watch()
        self._store = store
        self._slots = slots
        self._loop = loop
        self._clock = clock
        self._loop_away_since_s: float | None = None

    def facts(self, record: Record) -> Facts:
        """Look, for the rules to decide."""
        release = record.release
        if release is None:
            return Facts()
        asks_loop = record.state is State.PROBATION or record.trial_passed or record.by_order
        return Facts(
            running=self._slots.running,
            previous=self._slots.of(release.model).previous,
            installed=self._store.holds(release.sha256),
            part_bytes=self._store.part_bytes(release.sha256),
            loop=self._ask_loop(record, release) if asks_loop else None,
            loop_away_s=self._loop_away_s(),
            watched=self.watched(release),
        )

    def begin_watch(self, release: Release) -> None:
        """Begin the probation of a release."""
        try:
            task = self._store.manifest(release.sha256).task
            limit = task.max_detections if task.kind == "detection" else 0
        except BundleError:
            limit = 0  # the loop will say what is wrong with it
        self.watch.begin(release.sha256, self._clock.monotonic_s(), limit)

    def watched(self, release: Release) -> Watched:
        """Return what its probation has shown so far."""
        return self.watch.watched(release.sha256, self._clock.monotonic_s())

    def _ask_loop(self, record: Record, release: Release) -> LoopFacts | None:
        try:
            view = self._loop.status()
        except LinkError:
            if self._loop_away_since_s is None:
                self._loop_away_since_s = self._clock.monotonic_s()
            return None
        self._loop_away_since_s = None
        on_probation = record.state is State.PROBATION and view.active == release.sha256
        if on_probation and not self.watch.watches(release.sha256):
            self.begin_watch(release)
        return LoopFacts(view.active, view.loaded, view.loading)

    def _loop_away_s(self) -> float:
        since_s = self._loop_away_since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s
