"""Run the update engine on a thread of its own: a download or a trial must not hold up anything else."""

import logging
import threading
from typing import Final

from agent.clock import Clock, rfc3339
from agent.spool import Spool
from agent.status import KEPT_REFUSALS, RefusedDocument
from agent.supervisor.metrics import Metrics
from agent.update.engine import Engine
from agent.update.ports import Change
from ommatid.contract.messages import Event, Refusal, UpdateReport, UpdateState

PAUSE_S: Final = 0.25
JOIN_S: Final = 10.0

logger = logging.getLogger(__name__)


class Reports:
    """The engine's reporter: into the spool, and one wake-up for whoever sends."""

    def __init__(self, spool: Spool, metrics: Metrics, clock: Clock, changed: threading.Event) -> None:
        """Set `changed` after each report."""
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._changed = changed
        self.refusals: tuple[RefusedDocument, ...] = ()

    def update(self, change: Change, /) -> None:
        """Report one change of state of an update."""
        self._spool.add(
            UpdateReport,
            desired_rev=change.desired_rev,
            model=change.model.model_dump(),
            state=change.state,
            attempt=change.attempt,
            error=change.error,
            reason=_short(change.reason),
            figures=dict(change.figures),
        )
        self._changed.set()

    def refusal(self, error: str, reason: str, /) -> None:
        """Report a director document that was refused whole."""
        refused = RefusedDocument(error=error, reason=_short(reason) or "", at=rfc3339(self._clock.wall_s()))
        self.refusals = (*self.refusals, refused)[-KEPT_REFUSALS:]
        self._metrics.refusal(error)
        self._spool.add(Refusal, error=error, reason=refused.reason)
        self._changed.set()

    def event(self, name: str, severity: str, text: str, /, *, source: str | None = None) -> None:
        """Report something that an operator would want to know."""
        self._spool.add(Event, name=name, severity=severity, text=_short(text), source=source)
        self._changed.set()


class Updates:
    """The thread that ticks the engine."""

    def __init__(self, engine: Engine, changed: threading.Event) -> None:
        """Set `changed` when the state of the update is another."""
        self.engine = engine
        self._changed = changed
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)

    def start(self) -> None:
        """Take up what the last run left, then go on.

        Raises:
            StorageError: The state directory cannot be used.
        """
        self.engine.recover()
        self._thread.start()

    def offer(self, document: bytes) -> None:
        """Hand over a director document."""
        self.engine.offer(document)
        self._wake.set()

    def stop(self) -> None:
        """End a download soon, and do nothing more."""
        self._stopped.set()
        self.engine.stop()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        seen: UpdateState | None = None
        while not self._stopped.is_set():
            try:
                did = self.engine.tick()
            except Exception:  # a mistake of ours must not end updates for ever: the next one may bring the cure
                logger.exception("updates: a step failed in a way that no rule covers")
                did = False
            if (state := self.engine.record.state) is not seen:
                seen = state
                self._changed.set()
            if not did:
                self._wake.wait(PAUSE_S)
                self._wake.clear()


def _short(text: str | None) -> str | None:
    return text[:2000] if text is not None else None
