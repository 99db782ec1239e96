"""A TLS server whose CA nobody knows, and which answers as a test says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

from fleet_server.authority import Authority

Send = Callable[[bytes], None]
Behaviour = Callable[[Send, Event], None]


@contextmanager
def tls_server(folder: Path, behave: Behaviour) -> Iterator[str]:
    """Serve TLS on a free port, and let `behave` answer each request until it, or the test, has enough."""
    Authority.create(folder, datetime.now(UTC)).issue_own(folder, "server", "server", ["localhost"], datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    over = Event()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            try:
                with context.wrap_socket(self.request, server_side=True) as connection:
                    connection.recv(65536)
                    behave(connection.sendall, over)
            except OSError:
                return

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
