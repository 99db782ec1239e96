"""One whole system that the tests share: a server, its Mosquitto, two agents with a model. Each test leaves it well."""

from collections.abc import Iterator

import pytest

from tests.support.system import System

RATE: int = 20_000
"""Bytes a second of all downloads: a bundle of the tests takes a second or two, long enough to pull a plug in it."""


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System.begin(tmp_path_factory.mktemp("s"), "--bundle-rate-limit", str(RATE))
    try:
        system.add_agent("cam-a")
        system.add_agent("cam-b")
        system.install()
        yield system
    finally:
        system.end()
