"""Run one server: HTTP, Mosquitto as a child, ingest, rollouts, housekeeping; until it is told to stop."""

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from granian.constants import Interfaces
from granian.server.embed import Server

from fleet_server.app import create_app
from fleet_server.authority import SERVER_IDENTITY
from fleet_server.broker import check_port
from fleet_server.housekeeping import Housekeeping
from fleet_server.ingest.worker import Ingest
from fleet_server.rollouts.runner import RolloutRunner
from fleet_server.services import Services

logger = logging.getLogger(__name__)

SHUTDOWN_S: Final = 5
"""How long open requests, such as a page's event stream, may go on after the order to stop."""


def serve(parts: Services) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OmmatidError: A port is in use, Mosquitto is missing, or something in the folder is damaged.
    """
    settings = parts.settings
    check_port(settings.host, settings.http_port, "HTTP", "http_port")
    with running(parts):
        logger.info("fleet server %s: %s", settings.tenant, settings.url)
        asyncio.run(_serve_http(parts))
        logger.info("fleet server %s: stopping", settings.tenant)


@contextmanager
def running(parts: Services) -> Iterator[None]:
    """Run everything but HTTP inside the block."""
    with ExitStack() as stack:
        stack.callback(parts.database.close)
        parts.database.migrate()
        parts.bundles.clean()
        parts.releases.reconcile()
        renew_own_certificates(parts)
        parts.broker.start(parts.enrolment.revocation_list())
        stack.callback(parts.broker.stop)
        ingest = Ingest(parts.database, parts.session, parts.director, parts.changes, parts.metrics, parts.now)
        ingest.start()
        stack.callback(ingest.stop)
        parts.session.start()
        stack.callback(parts.session.stop)
        runner = RolloutRunner(parts.database, parts.director, parts.changes, parts.now)
        runner.start()
        stack.callback(runner.stop)
        housekeeping = Housekeeping(parts)
        housekeeping.start()
        stack.callback(housekeeping.stop)
        yield


def renew_own_certificates(parts: Services) -> None:
    """Give HTTP, the broker and our own session fresh certificates, for the names of the settings as they are now."""
    folder, names, now = parts.places.authority, parts.settings.names, parts.now()
    parts.authority.issue_own(folder, "http", "fleet-http", names, now)
    parts.authority.issue_own(folder, "broker", "fleet-broker", names, now)
    parts.authority.issue_own(folder, "session", SERVER_IDENTITY, (), now)


async def _serve_http(parts: Services) -> None:
    folder = parts.places.authority
    server = Server(
        create_app(parts),
        address=parts.settings.host,
        port=parts.settings.http_port,
        interface=Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        ssl_cert=folder / "http.crt",
        ssl_key=folder / "http.key",
    )
    server.workers_kill_timeout = SHUTDOWN_S
    loop = asyncio.get_running_loop()

    def stop() -> None:
        parts.changes.close()  # ends the pages' event streams, which would hold the server up
        loop.call_soon(server.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with suppress(TimeoutError):  # a download that outlasts the order to stop is cut; the device resumes it
        await server.serve()
