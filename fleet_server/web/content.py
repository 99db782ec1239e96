"""The live part of the page: from the database to one fragment of HTML."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.access import Operator
from fleet_server.database.models import Rollout
from fleet_server.inventory import DeviceView, list_devices
from fleet_server.roles import Role
from fleet_server.rollouts.views import RolloutView, rollout_view
from fleet_server.web import formats
from ommatid import __version__

ROLLOUTS_SHOWN: Final = 4
DEVICES_SHOWN: Final = 200
PARTS_SHOWN: Final = 24
TEMPLATES: Final = Path(__file__).parent / "templates"

_pages = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_pages.filters |= {
    "number": formats.number,
    "moment": formats.moment,
    "span": formats.span,
    "ago": formats.ago,
    "words": formats.words,
    "outcome": formats.outcome,
}
_pages.globals |= {
    "tone": formats.tone,
    "release": __version__,
    "parts_shown": PARTS_SHOWN,
    "favicon": quote(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="#12887f">'
        '<path d="M16 1l6 3.5v7L16 15l-6-3.5v-7z"/><path d="M8 15l6 3.5v7L8 29l-6-3.5v-7z" opacity=".8"/>'
        '<path d="M24 15l6 3.5v7L24 29l-6-3.5v-7z" opacity=".6"/></svg>'
    ),
}


@dataclass(frozen=True, slots=True)
class RunningModel:
    """How many online devices run one release."""

    name: str
    version: str
    devices: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The fleet in four numbers."""

    devices: int
    online: int
    models: tuple[RunningModel, ...]
    fps: float
    alarms: int


def totals(devices: list[DeviceView]) -> Totals:
    """Add the fleet up; devices that are offline run nothing that we know of."""
    online = [device for device in devices if device.online]
    running = Counter((device.model.name, device.model.version) for device in online if device.model)
    return Totals(
        devices=len(devices),
        online=len(online),
        models=tuple(RunningModel(name, version, count) for (name, version), count in running.most_common(3)),
        fps=sum(device.fps or 0 for device in online),
        alarms=sum(bool(device.alarms) for device in devices),
    )


def live_fragment(session: Session, operator: Operator, now: datetime) -> str:
    """Return what changes on the page, as the database is now."""
    devices = list_devices(session, operator.tenant)
    return _pages.get_template("live.html").render(
        totals=totals(devices),
        devices=_most_urgent(devices),
        rollouts=_newest_rollouts(session, operator.tenant),
        may_steer=operator.role.allows(Role.OPERATOR),
        now=now,
    )


def page(operator: Operator, live: str) -> str:
    """Return the whole page around its live part."""
    return _pages.get_template("page.html").render(operator=operator, live=_pages.filters["safe"](live))


def login_page(*, refused: bool) -> str:
    """Return the form that asks for a token."""
    return _pages.get_template("login.html").render(refused=refused)


def _most_urgent(devices: list[DeviceView]) -> list[DeviceView]:
    """Return all of a small fleet by id; of a large one, those with trouble first."""
    if len(devices) <= DEVICES_SHOWN:
        return devices
    return sorted(devices, key=lambda one: (not one.alarms, one.failure is None, one.id))[:DEVICES_SHOWN]


def _newest_rollouts(session: Session, tenant: str) -> list[RolloutView]:
    statement = select(Rollout).where(Rollout.tenant == tenant).order_by(Rollout.id.desc()).limit(ROLLOUTS_SHOWN)
    return [rollout_view(session, rollout) for rollout in session.scalars(statement)]
