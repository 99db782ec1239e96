"""The page on a real HTTP server of its own, over a small fleet."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from fastapi import FastAPI
from granian.constants import Interfaces
from granian.server.embed import Server

from fleet_server.api import fleet as fleet_routes
from fleet_server.api import problems, rollouts
from fleet_server.authority import Authority
from fleet_server.credentials import hash_secret
from fleet_server.database.models import OperatorToken
from fleet_server.web import page
from tests.support.broker import free_port, listens
from tests.support.programs import until
from tests.support.small_fleet import TENANT, SmallFleet

OPERATOR = "token-of-anna"


@dataclass(frozen=True)
class PageServer:
    """Where the page is, and who may see it."""

    port: int
    token: str
    fleet: SmallFleet

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def page_app(fleet: SmallFleet) -> FastAPI:
    """Return the page and the API over a small fleet."""
    app = FastAPI()
    app.state.services = SimpleNamespace(
        database=fleet.database, director=fleet.director, changes=fleet.changes, now=fleet.now
    )
    problems.install(app)
    for part in (page, rollouts, fleet_routes):
        app.include_router(part.router)
    return app


def add_operator(fleet: SmallFleet, name: str, role: str) -> str:
    """Return the token of an operator."""
    secret = f"token-of-{name}"
    with fleet.database.write() as session:
        if session.query(OperatorToken).where(OperatorToken.name == name).first() is None:
            session.add(
                OperatorToken(
                    tenant=TENANT, name=name, role=role, secret_hash=hash_secret(secret), created_at=fleet.now()
                )
            )
    return secret


@contextmanager
def page_server(folder: Path, fleet: SmallFleet, port: int | None = None) -> Iterator[PageServer]:
    """Serve the page over TLS, as the real server does, until the end of the block."""
    authority = Authority.create(folder / "authority", fleet.now())
    authority.issue_own(folder / "authority", "http", "fleet-http", ("127.0.0.1",), fleet.now())
    token = add_operator(fleet, "anna", "operator")
    port = port or free_port()
    end = threading.Event()

    async def run() -> None:
        server = Server(
            page_app(fleet),
            port=port,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_enabled=False,
            ssl_cert=folder / "authority" / "http.crt",
            ssl_key=folder / "authority" / "http.key",
        )
        server.workers_kill_timeout = 1
        serving = asyncio.create_task(server.serve())
        await asyncio.to_thread(end.wait)
        fleet.changes.close()
        server.stop()
        await serving

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    try:
        until(lambda: listens(port), "the page")  # the server's own start-up hook comes before that
        yield PageServer(port, token, fleet)
    finally:
        end.set()
        thread.join(10)
