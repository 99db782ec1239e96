"""Numbers, moments and states as people read them."""

from datetime import datetime
from typing import Final

from fleet_server.rollouts.facts import RolloutState
from fleet_server.rollouts.views import RolloutView

NONE: Final = "\N{EN DASH}"
MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86400
JUST_NOW_S: Final = 15

_TONES: Final = {
    "good": {"committed", "finished", "ok"},
    "busy": {"running", "offered", "downloading", "verified", "trial", "loaded", "shadow", "probation", "returning"},
    "bad": {"aborted", "failed", "refused", "rolled_back", "flagged"},
    "warn": {"paused", "unsupported"},
}


def tone(state: str) -> str:
    """Return the colour family of a state; its word says the same."""
    return next((tone for tone, states in _TONES.items() if state in states), "idle")


def words(state: str) -> str:
    """Return a state as words."""
    return state.replace("_", " ")


def number(value: float | None, digits: int) -> str:
    """Return a number with a fixed count of decimals, so that a column lines up."""
    return NONE if value is None else f"{value:,.{digits}f}"


def moment(value: datetime) -> str:
    """Return a moment in UTC, to the minute."""
    return f"{value:%Y-%m-%d %H:%M} UTC"


def span(seconds: float) -> str:
    """Return a duration with a unit that fits it."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < HOUR_S:
        return f"{int(seconds // MINUTE_S)} min {int(seconds % MINUTE_S)} s"
    if seconds < DAY_S:
        return f"{int(seconds // HOUR_S)} h {int(seconds % HOUR_S // MINUTE_S)} min"
    return f"{int(seconds // DAY_S)} d"


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was, coarsely, so that a quiet page stays quiet."""
    if value is None:
        return "never"
    seconds = (now - value).total_seconds()
    if seconds < JUST_NOW_S:
        return "just now"
    for unit, size in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds // JUST_NOW_S) * JUST_NOW_S} s ago"


def outcome(rollout: RolloutView) -> str:
    """Return the end of a rollout in one line."""
    reached = len(rollout.devices)
    devices = f"{reached} device{'' if reached == 1 else 's'}"
    if rollout.state is RolloutState.ABORTED:
        failed = next((part for part in rollout.devices if part.error), None)
        told = f"{failed.id}: {failed.error}: {failed.reason}" if failed else (rollout.reason or "")
        return f"sent back from {devices}; {told}" if told else f"sent back from {devices}"
    committed = sum(stage.committed for stage in rollout.stages)
    failures = sum(stage.failed for stage in rollout.stages)
    told = f"{committed} of {devices} committed" + (f", {failures} failed" if failures else "")
    if rollout.push_to_committed_s is not None:
        told += f", the last {span(rollout.push_to_committed_s)} after the push"
    return told
