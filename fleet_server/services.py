"""The parts of one running server, handed to whoever needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fleet_server.authority import Authority
from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.director import Director
from fleet_server.places import Places
from fleet_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Composed once, in fleet_server.app; `changes` is notified after each commit that a page would show."""

    places: Places
    settings: Settings
    database: Database
    authority: Authority
    director: Director
    changes: Changes
    now: Callable[[], datetime]
