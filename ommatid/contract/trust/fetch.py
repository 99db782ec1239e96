"""Fetch signed metadata over HTTP: bounded in size by the caller, and here in time."""

import time
from collections.abc import Iterator
from typing import Final

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

CHUNK: Final = 64 * 1024
TIMEOUT: Final = httpx.Timeout(30, connect=10)


class HttpxFetcher(FetcherInterface):
    """python-tuf's fetcher on an httpx client, which brings the certificates and credentials."""

    def __init__(self, client: httpx.Client, deadline_s: float = 120) -> None:
        """Take the client; one file may take `deadline_s` seconds, so that a trickling server cannot hold us."""
        self._client = client
        self._deadline_s = deadline_s

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Yield the file's bytes; every failure is one of python-tuf's download errors."""
        ends = time.monotonic() + self._deadline_s
        try:
            with self._client.stream("GET", url, timeout=TIMEOUT) as response:
                if response.status_code != httpx.codes.OK:
                    raise DownloadHTTPError(f"{url}: HTTP status {response.status_code}", response.status_code)
                for chunk in response.iter_bytes(CHUNK):
                    if time.monotonic() > ends:
                        raise SlowRetrievalError(f"{url}: not complete after {self._deadline_s:.0f} s")
                    yield chunk
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{url}: {error or type(error).__name__}") from error
