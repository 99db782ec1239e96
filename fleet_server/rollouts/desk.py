"""What a person does with rollouts: start, look at, pause, resume and abort them."""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.database.models import Release, Rollout
from fleet_server.director import Director
from fleet_server.errors import ConflictError, NotFoundError
from fleet_server.rollouts.facts import RolloutState
from fleet_server.rollouts.stages import parse_amount, parse_stages
from fleet_server.rollouts.store import Writer, find_releases, newest_lasting
from fleet_server.rollouts.views import PlanView, RolloutRequest, RolloutView, plan_view, rollout_view

ROLLOUT_ID = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class RolloutDesk:
    """The rollouts of one tenant, for one person; every call is one transaction."""

    database: Database
    director: Director
    changes: Changes
    now: Callable[[], datetime]
    tenant: str
    who: str

    def plan(self, request: RolloutRequest) -> PlanView:
        """Return what a rollout would do, and change nothing.

        Raises:
            BadInputError: An option makes no sense.
            NotFoundError: There is no such release.
            ConflictError: Two builds fit the same hardware.
        """
        with self.database.read() as session:
            return plan_view(session, self._draft(session, request))[1]

    def start(self, request: RolloutRequest) -> RolloutView:
        """Begin a rollout.

        Raises:
            BadInputError: An option makes no sense.
            NotFoundError: There is no such release.
            ConflictError: Another rollout goes on, no device can take the release, or two builds fit one hardware.
        """
        with self.database.write() as session:
            rollout = self._draft(session, request)
            self._refuse_a_second(session)
            planned, view = plan_view(session, rollout)
            if planned.hopeless:
                reasons = "; ".join(f"{one.id} {one.reason}" for one in view.not_eligible[:3])
                raise ConflictError(
                    f"no device can take {request.model} {request.version}: {reasons}",
                    hint="push a build for this hardware, or change --tag; `fleet devices` shows the fleet",
                )
            session.add(rollout)
            session.flush()
            Writer(session, self.director, rollout.created_at).note(rollout, self.who, "started")
            result = rollout_view(session, rollout)
        self.changes.notify()
        return result

    def every(self, limit: int = 100) -> list[RolloutView]:
        """Return the rollouts, the newest first."""
        with self.database.read() as session:
            statement = select(Rollout).where(Rollout.tenant == self.tenant).order_by(Rollout.id.desc()).limit(limit)
            return [rollout_view(session, rollout) for rollout in session.scalars(statement)]

    def status(self, rollout_id: str) -> RolloutView:
        """Return one rollout.

        Raises:
            NotFoundError: There is none of this number.
        """
        with self.database.read() as session:
            return rollout_view(session, self._find(session, rollout_id))

    def pause(self, rollout_id: str) -> RolloutView:
        """Offer to no further device until `resume`; devices that have the offer go on with it.

        Raises:
            NotFoundError: There is none of this number.
            ConflictError: It has ended.
        """
        return self._steer(rollout_id, RolloutState.PAUSED)

    def resume(self, rollout_id: str) -> RolloutView:
        """Go on after a pause; devices that fell silent are waited for once more.

        Raises:
            NotFoundError: There is none of this number.
            ConflictError: It has ended.
        """
        return self._steer(rollout_id, RolloutState.RUNNING)

    def abort(self, rollout_id: str) -> RolloutView:
        """Stop for good and send the devices back to what they ran; the last finished rollout can be undone so too.

        Raises:
            NotFoundError: There is none of this number.
            ConflictError: A later rollout has taken its place.
        """
        return self._steer(rollout_id, RolloutState.ABORTED)

    def _steer(self, rollout_id: str, wanted: RolloutState) -> RolloutView:
        with self.database.write() as session:
            rollout = self._find(session, rollout_id)
            current = RolloutState(rollout.state)
            if current is not wanted:
                self._check_step(session, rollout, current, wanted)
                now = self.now()
                rollout.state = wanted
                if wanted is RolloutState.RUNNING:
                    rollout.stage_started_at, rollout.reason = now, None
                else:
                    rollout.reason = f"{wanted} by {self.who}"
                if wanted is RolloutState.ABORTED:
                    rollout.finished_at = now
                Writer(session, self.director, now).note(rollout, self.who, wanted)
            result = rollout_view(session, rollout)
        self.changes.notify()
        return result

    def _check_step(self, session: Session, rollout: Rollout, current: RolloutState, wanted: RolloutState) -> None:
        if current.active:
            return
        if wanted is RolloutState.ABORTED and newest_lasting(session, self.tenant) == rollout.id:
            return
        step = "resumed" if wanted is RolloutState.RUNNING else wanted
        raise ConflictError(
            f"rollout {rollout.id} is {current} and cannot be {step}",
            hint="`fleet rollout start` begins a new one" if wanted is not RolloutState.ABORTED else None,
        )

    def _find(self, session: Session, rollout_id: str) -> Rollout:
        rollout = session.get(Rollout, int(rollout_id)) if ROLLOUT_ID.fullmatch(rollout_id) else None
        if rollout is None or rollout.tenant != self.tenant:
            raise NotFoundError(f"there is no rollout {rollout_id[:40]!r}", hint="`fleet rollout status` lists them")
        return rollout

    def _refuse_a_second(self, session: Session) -> None:
        active = [state for state in RolloutState if state.active]
        statement = select(Rollout).where(Rollout.tenant == self.tenant, Rollout.state.in_(active))
        other = session.scalars(statement).first()
        if other is not None:
            raise ConflictError(
                f"rollout {other.id} of {other.model} {other.version} is {other.state}",
                hint=f"wait for its end, or `fleet rollout abort {other.id}`",
            )

    def _draft(self, session: Session, request: RolloutRequest) -> Rollout:
        """Return the rollout asked for, checked, and not stored."""
        stages = parse_stages(request.stages)
        limits = {
            "max_failures": str(parse_amount(request.max_failures, "--max-failures")),
            "min_success": str(parse_amount(request.min_success, "--min-success")),
            "patience_s": request.patience_s,
        }
        releases = find_releases(session, self.tenant, request.model, request.version, request.target)
        if not releases:
            raise self._no_release(session, request)
        _refuse_ambiguity(releases)
        now = self.now()
        return Rollout(
            tenant=self.tenant,
            model=request.model,
            version=request.version,
            target=request.target,
            selector=sorted(set(request.tags)),
            stages=[str(stage) for stage in stages],
            soak_s=request.soak_s,
            thresholds=limits,
            salt=secrets.token_hex(8),
            state=RolloutState.RUNNING,
            stage=0,
            created_at=now,
            created_by=self.who,
            stage_started_at=now,
        )

    def _no_release(self, session: Session, request: RolloutRequest) -> NotFoundError:
        statement = select(Release.version).where(Release.tenant == self.tenant, Release.model == request.model)
        known = sorted(set(session.scalars(statement)))
        what = f"{request.model} {request.version}" + (f" for {request.target}" if request.target else "")
        hint = (
            f"pushed versions of {request.model}: {', '.join(known[-10:])}" if known else "`fleet releases` lists them"
        )
        return NotFoundError(f"no release {what} was pushed", hint=hint)


def _refuse_ambiguity(releases: Sequence[Release]) -> None:
    counts = Counter(hardware for release in releases for hardware in set(release.hardware))
    if twice := sorted(hardware for hardware, count in counts.items() if count > 1):
        targets = ", ".join(sorted(release.target for release in releases))
        raise ConflictError(f"several builds are for {', '.join(twice)}: {targets}", hint="choose one with --target")
