import json
from collections.abc import Iterator

import httpx
import pytest

from agent.supervisor.web import Pages, WebServer
from ommatid.errors import BadInputError

PAGES = Pages(
    metrics=lambda: b"ommatid_x 1\n",
    healthy=lambda: (True, "well"),
    ready=lambda: (False, "no frame inferred yet"),
    status=lambda: {"running": True},
)


@pytest.fixture
def server() -> Iterator[WebServer]:
    server = WebServer("127.0.0.1", 0, PAGES)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("page", "code", "text"),
    [
        ("/metrics", 200, "ommatid_x 1\n"),
        ("/healthz", 200, "well\n"),
        ("/readyz", 503, "no frame inferred yet\n"),
        ("/status", 200, json.dumps({"running": True})),
        ("/other", 404, "/metrics /healthz /readyz /status\n"),
    ],
)
def test_each_page_tells_one_thing(server: WebServer, page: str, code: int, text: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{server.port}{page}?x=1")

    assert (answer.status_code, answer.text) == (code, text)


def test_it_takes_no_orders(server: WebServer) -> None:
    assert httpx.post(f"http://127.0.0.1:{server.port}/status").status_code == 501


def test_a_port_in_use_is_one_clear_error(server: WebServer) -> None:
    with pytest.raises(BadInputError, match=f"{server.port}: the port is in use") as caught:
        WebServer("127.0.0.1", server.port, PAGES)

    assert "--http-port" in str(caught.value.hint)
