import threading
from collections.abc import Iterator
from socketserver import BaseRequestHandler, ThreadingTCPServer

import httpx
import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError

from ommatid.contract.trust.fetch import HttpxFetcher
from tests.support.repository import served


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


def test_a_file_comes_whole(client: httpx.Client) -> None:
    content = bytes(range(256)) * 1000
    with served({"/a/b%2F..json": content}, []) as url:
        assert HttpxFetcher(client).download_bytes(f"{url}/a/b%2F..json", len(content)) == content


def test_more_than_allowed_is_refused(client: httpx.Client) -> None:
    with served({"/a": bytes(100)}, []) as url, pytest.raises(DownloadLengthMismatchError):
        HttpxFetcher(client).download_bytes(f"{url}/a", 99)


def test_a_missing_file_has_its_status(client: httpx.Client) -> None:
    with served({}, []) as url, pytest.raises(DownloadHTTPError) as caught:
        HttpxFetcher(client).download_bytes(f"{url}/a", 99)

    assert caught.value.status_code == 404


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a", "nonsense", "http://[", "ftp://127.0.0.1/a"])
def test_no_server_is_a_download_error(client: httpx.Client, url: str) -> None:
    with pytest.raises(DownloadError):
        HttpxFetcher(client).download_bytes(url, 99)


class Handler(BaseRequestHandler):
    body = b""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + self.body)


@pytest.fixture
def broken_server() -> Iterator[str]:
    """Serve a promise of 1000 bytes, send three, and hang up."""
    handler = type("Three", (Handler,), {"body": b"abc"})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a"
        server.shutdown()
        thread.join()


def test_a_connection_that_breaks_is_a_download_error(client: httpx.Client, broken_server: str) -> None:
    with pytest.raises(DownloadError):
        HttpxFetcher(client).download_bytes(broken_server, 1000)


def test_a_server_that_trickles_is_left(client: httpx.Client) -> None:
    with served({"/a": bytes(100)}, []) as url, pytest.raises(SlowRetrievalError):
        HttpxFetcher(client, deadline_s=0).download_bytes(f"{url}/a", 100)
