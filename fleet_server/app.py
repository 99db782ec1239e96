"""Put one server together: the parts, and the HTTP application over them."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event

from fastapi import FastAPI
from sqlalchemy import Select, func, select

from fleet_server.api import devices, fleet, operators, problems, repository, rollouts
from fleet_server.api.limits import BodyLimit
from fleet_server.api.throttle import Bucket
from fleet_server.authority import SERVER_IDENTITY, Authority
from fleet_server.broker import Broker
from fleet_server.bundles import BundleStore
from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.database.models import Device
from fleet_server.director import Director
from fleet_server.enrolment import Enrolment
from fleet_server.metrics import Metrics
from fleet_server.places import Places
from fleet_server.releases import OnlineKeys, ReleaseRepository
from fleet_server.services import Services
from fleet_server.settings import Settings
from fleet_server.signing.keys import load_key
from fleet_server.web import page
from ommatid import __version__
from ommatid.mqtt import Broker as BrokerAddress
from ommatid.mqtt import Session

KEEP_SESSION_S = 3600
"""How long the broker queues reports while the server restarts; beyond that the devices' spools do."""


def compose(root: Path, settings: Settings, now: Callable[[], datetime] | None = None) -> Services:
    """Build the parts of the server whose folder is `root`; nothing runs or listens yet.

    Raises:
        OmmatidError: Something in the folder is missing or damaged.
    """
    now = now or (lambda: datetime.now(UTC))
    places = Places(root.resolve())
    database = Database.at(places.database)
    authority = Authority.load(places.authority)
    bundles = BundleStore(places.bundles, settings.max_bundle_bytes)
    broker = Broker(places.broker, places.authority, settings.host, settings.mqtt_port)
    reconnected = Event()
    session = _session(places, settings, reconnected)
    director = Director(database, load_key(places.keys / "director.key"), session, now)
    online = OnlineKeys(load_key(places.keys / "snapshot.key"), load_key(places.keys / "timestamp.key"))
    releases = ReleaseRepository(places.metadata / "release", online, bundles, database, settings.tenant, now)
    enrolment = Enrolment(database, authority, director, settings, now)
    metrics = _metrics(database, broker, session, releases)
    return Services(
        places=places,
        settings=settings,
        database=database,
        authority=authority,
        broker=broker,
        session=session,
        director=director,
        enrolment=enrolment,
        releases=releases,
        bundles=bundles,
        changes=Changes(),
        metrics=metrics,
        reconnected=reconnected,
        now=now,
    )


def create_app(services: Services) -> FastAPI:
    """Return the HTTP application."""
    # FastAPI's own pages of documentation would run scripts of a CDN beside an operator's session.
    app = FastAPI(title="Ommatid fleet server", version=__version__, docs_url=None, redoc_url=None)
    app.state.services = services
    limit = services.settings.bundle_rate_limit
    app.state.bundle_bucket = Bucket(limit) if limit else None
    app.add_middleware(BodyLimit)
    problems.install(app)
    for part in (devices, repository, fleet, rollouts, operators, page):
        app.include_router(part.router)
    return app


def _session(places: Places, settings: Settings, reconnected: Event) -> Session:
    """Return the server's own connection to its broker, on this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    folder = places.authority
    ca, certificate, key = folder / "ca.crt", folder / "session.crt", folder / "session.key"
    address = BrokerAddress(here, settings.mqtt_port, ca, certificate, key)
    return Session(
        address, SERVER_IDENTITY, on_connected=reconnected.set, manual_ack=True, keep_session_s=KEEP_SESSION_S
    )


def _metrics(database: Database, broker: Broker, session: Session, releases: ReleaseRepository) -> Metrics:
    def count(statement: Select[int]) -> float:
        with database.read() as reading:
            return float(reading.scalars(statement).one())

    enrolled = select(func.count()).select_from(Device).where(Device.revoked_at.is_(None))
    metrics = Metrics()
    metrics.watch("ommatid_fleet_broker_restarts", "Restarts of Mosquitto", lambda: float(broker.restarts))
    metrics.watch("ommatid_fleet_broker_connected", "1 while connected", lambda: float(session.connected))
    for name in ("root", "targets"):
        series = f"ommatid_fleet_release_{name}_expiry_timestamp_seconds"
        metrics.watch(series, f"When the release {name} expires", partial(_expiry, releases, name))
    metrics.watch(
        "ommatid_fleet_messages_broken", "Messages that no one understood", lambda: float(session.counts.broken.total())
    )
    metrics.watch("ommatid_fleet_devices_enrolled", "Devices enrolled", lambda: count(enrolled))
    metrics.watch("ommatid_fleet_devices_online", "Devices online", lambda: count(enrolled.where(Device.online)))
    return metrics


def _expiry(releases: ReleaseRepository, name: str) -> float:
    return releases.expiries()[name].timestamp()
