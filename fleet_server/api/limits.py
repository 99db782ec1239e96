"""Bound what a request may carry before anything reads it."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.api.problems import problem

MAX_BODY_BYTES: Final = 6 * 1024 * 1024
"""The largest document is a signed list of releases, of which devices read 5 MB at most."""
TOO_LARGE: Final = f"a body of more than {MAX_BODY_BYTES} bytes"
UPLOADS: Final = "/v1/bundles/"


class BodyLimit:
    """Refuse bodies that are too large or do not say how large they are; bundles have a limit of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 411 or 413."""
        if scope["type"] != "http" or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers:
            await problem(411, "LengthRequiredError", "say Content-Length")(scope, receive, send)
        elif not length.isdigit() or int(length) > MAX_BODY_BYTES:
            await problem(413, "TooLargeError", TOO_LARGE)(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive), send)


def _bounded(receive: Receive) -> Receive:
    """Count what arrives: HTTP/2 carries bodies without any word on their length."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted
