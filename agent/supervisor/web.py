"""The agent's own small HTTP server, on loopback unless the settings say otherwise; it only tells, never does."""

import errno
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ommatid.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Pages:
    """What can be read.

    healthy: the supervisor turns. ready: a frame was inferred lately. Both with one line of text.
    """

    metrics: Callable[[], bytes]
    healthy: Callable[[], tuple[bool, str]]
    ready: Callable[[], tuple[bool, str]]
    status: Callable[[], dict[str, Any]]


class WebServer:
    """Serves the pages on threads of its own."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Bind the port; port 0 takes a free one.

        Raises:
            BadInputError: The port is in use, or the address is not ours.
        """
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(pages))
        except OSError as error:
            what = "the port is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
            raise BadInputError(
                f"http_port {host}:{port}: {what}",
                hint="stop what listens there, or set --http-port to another port (0 takes any free one)",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """Return the port that is bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET requests; logs nothing."""

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._send(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", pages.metrics())
                case "/healthz":
                    self._verdict(*pages.healthy())
                case "/readyz":
                    self._verdict(*pages.ready())
                case "/status":
                    self._send(HTTPStatus.OK, "application/json", json.dumps(pages.status()).encode())
                case _:
                    self._send(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics /healthz /readyz /status\n")

        def _verdict(self, good: bool, text: str) -> None:  # noqa: FBT001 - a verdict is a yes or a no
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode())

        def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: a probe every few seconds is no change of state."""

    return Handler
