from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.updating import BundleServer, Device, Signed, make_release, serving


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def v1(bundles: Path) -> Signed:
    return make_release(bundles, "1", rev=1, counter=1)


@pytest.fixture(scope="session")
def v2(bundles: Path) -> Signed:
    return make_release(bundles, "2", rev=2, counter=2)


@pytest.fixture(scope="session")
def v3(bundles: Path) -> Signed:
    return make_release(bundles, "3", rev=3, counter=3)


@pytest.fixture
def server(bundles: Path) -> Iterator[BundleServer]:
    with serving(bundles) as server:
        yield server


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:  # noqa: S501 (plain HTTP; loading the CA list takes longer than a test)
        yield client


@pytest.fixture
def device(tmp_path: Path, server: BundleServer, client: httpx.Client, v1: Signed) -> Device:
    """A device on which version 1 is committed."""
    device = Device(tmp_path, server.url, client=client)
    device.run(v1.document)
    return device
