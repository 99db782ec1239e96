"""Keep bundle downloads from filling a thin uplink."""

import asyncio
import os
import time
from collections.abc import Mapping

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send


class Bucket:
    """Bytes that may be sent now; fills at a fixed rate, and never holds more than a quarter of a second's."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._paid_until = time.monotonic()

    async def take(self, count: int) -> None:
        """Wait until `count` bytes may go; callers are served in the order they came."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now - 0.25) + count / self._rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)


class ThrottledFile(FileResponse):
    """A file, whole or in ranges, sent no faster than its bucket allows."""

    def __init__(self, bucket: Bucket | None, path: os.PathLike[str], headers: Mapping[str, str]) -> None:
        super().__init__(path, headers=headers, media_type="application/octet-stream")
        self._bucket = bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        if self._bucket is None:
            await super().__call__(scope, receive, send)
            return
        bucket = self._bucket
        extensions = {name: value for name, value in scope.get("extensions", {}).items() if "pathsend" not in name}

        async def slowly(message: Message) -> None:
            if message["type"] == "http.response.body":
                await bucket.take(len(message.get("body", b"")))
            await send(message)

        await super().__call__({**scope, "extensions": extensions}, receive, slowly)
