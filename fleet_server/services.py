"""The parts of one running server, handed to whoever needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from fleet_server.authority import Authority
from fleet_server.broker import Broker
from fleet_server.bundles import BundleStore
from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.director import Director
from fleet_server.enrolment import Enrolment
from fleet_server.metrics import Metrics
from fleet_server.places import Places
from fleet_server.releases import ReleaseRepository
from fleet_server.settings import Settings
from ommatid.mqtt import Session


@dataclass(frozen=True, slots=True)
class Services:
    """Composed once, in fleet_server.app; `changes` is notified after each commit that a page would show."""

    places: Places
    settings: Settings
    database: Database
    authority: Authority
    broker: Broker
    session: Session
    director: Director
    enrolment: Enrolment
    releases: ReleaseRepository
    bundles: BundleStore
    changes: Changes
    metrics: Metrics
    reconnected: Event
    """Set whenever the broker has accepted us: it may have lost what it retained."""
    now: Callable[[], datetime]
