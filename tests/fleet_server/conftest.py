"""One running fleet server for the tests of a module that share it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet_server import FleetServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    """Return a server that the module's tests share."""
    server = FleetServer(tmp_path_factory.mktemp("fleet"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[FleetServer]:
    """Return a running server that the test may kill."""
    server = FleetServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()
