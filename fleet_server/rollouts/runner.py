"""Carry rollouts on: after each change in the database, and every few seconds.

The decision is made in the transaction that writes it down, so that a person's pause or abort is never overtaken.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.database.models import Rollout
from fleet_server.director import Director
from fleet_server.rollouts.reports import BATCH, absorb, new_reports, start_of_news
from fleet_server.rollouts.rules import Abort, Action, CompleteStage, Finish, Offer, Pause, SendBack, advance
from fleet_server.rollouts.store import Writer, load_devices, load_rollout, unsettled
from ommatid.errors import OmmatidError

logger = logging.getLogger(__name__)

TICK_S: Final = 2.0
BREATH_S: Final = 0.1
"""Changes within this time are looked at together."""
ROUNDS: Final = 100
"""No rollout needs more decisions in a row; a mistake in the rules must not hold the thread."""


class RolloutRunner:
    """One thread that applies the rollout rules; `tick` is the whole of its work."""

    def __init__(self, database: Database, director: Director, changes: Changes, now: Callable[[], datetime]) -> None:
        self._database = database
        self._director = director
        self._changes = changes
        self._now = now
        self._last_report: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    def start(self) -> None:
        """Begin to carry rollouts on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is decided is stored, what is not will be after the next start."""
        self._stopping.set()
        self._changes.notify()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> bool:
        """Read new reports and do all that the rules ask for now; tell whether anything changed."""
        changed = self._absorb()
        with self._database.read() as session:
            ids = [rollout.id for rollout in unsettled(session)]
        for rollout_id in ids:
            changed = self._carry_on(rollout_id) or changed
        return changed

    def _run(self) -> None:
        seen = self._changes.number
        while not self._stopping.is_set():
            try:
                if self.tick():
                    self._changes.notify()
            except (SQLAlchemyError, OmmatidError):
                logger.exception("rollouts: this round failed; the next one tries again")
            self._stopping.wait(BREATH_S)
            seen = self._changes.wait(seen, TICK_S)

    def _absorb(self) -> bool:
        changed = 0
        with self._database.read() as session:
            if self._last_report is None:
                self._last_report = start_of_news(session, [rollout.id for rollout in unsettled(session)])
            waiting = bool(new_reports(session, self._last_report))
        while waiting:
            with self._database.write() as session:
                reports = new_reports(session, self._last_report)
                changed += absorb(session, reports)
            self._last_report = reports[-1].id if reports else self._last_report
            waiting = len(reports) == BATCH
        return changed > 0

    def _carry_on(self, rollout_id: int) -> bool:
        for done in range(ROUNDS):
            if not self._step(rollout_id):
                return done > 0
        logger.error("rollout %d: still deciding after %d rounds", rollout_id, ROUNDS)
        return True

    def _step(self, rollout_id: int) -> bool:
        """Ask the rules once, and apply what they answer in one transaction."""
        now = self._now()
        with self._database.read() as session:
            rollout = session.get_one(Rollout, rollout_id)
            facts = load_rollout(session, rollout)
            if not advance(facts, load_devices(session, rollout.tenant, rollout_id), now.timestamp()):
                return False
        with self._database.write() as session:
            rollout = session.get_one(Rollout, rollout_id)
            facts = load_rollout(session, rollout)
            actions = advance(facts, load_devices(session, rollout.tenant, rollout_id), now.timestamp())
            writer = Writer(session, self._director, now)
            for action in actions:
                writer.apply(rollout, action)
            session.flush()
        _log(rollout, actions)
        return bool(actions)


def _log(rollout: Rollout, actions: tuple[Action, ...]) -> None:
    """Write one line a change of state; offers are counted, not listed."""
    name = f"rollout {rollout.id} ({rollout.model} {rollout.version})"
    for what, kind in (("offered to", Offer), ("sending back", SendBack)):
        if count := sum(isinstance(action, kind) for action in actions):
            logger.info("%s: %s %d devices", name, what, count)
    for action in actions:
        match action:
            case CompleteStage(stage):
                logger.info("%s: stage %d complete", name, stage + 1)
            case Pause(reason) | Abort(reason):
                logger.warning("%s: %s: %s", name, rollout.state, reason)
            case Finish():
                logger.info("%s: finished", name)
            case _:
                pass
