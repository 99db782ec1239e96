"""Ask a server that is not believed yet: bounded in size and in time, whatever it sends and however slowly."""

import asyncio
import ssl
from typing import Final

import httpx

from agent.server_errors import answered, unreachable
from ommatid.errors import LinkError

MAX_BYTES: Final = 1024 * 1024
MAX_S: Final = 30.0


def ask(method: str, url: str, trusted: ssl.SSLContext | None, body: bytes | None = None) -> bytes:
    """Return the answer of a server; `trusted` is None while there is nothing to know it by.

    Raises:
        LinkError: It is not there, refuses, or sends too much or too slowly.
    """
    return asyncio.run(_ask(method, url, trusted, body))


async def _ask(method: str, url: str, trusted: ssl.SSLContext | None, body: bytes | None) -> bytes:
    # Of a server that nothing is known of, the caller believes nothing but what has a digest that it knows.
    verify: ssl.SSLContext | bool = False if trusted is None else trusted
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(MAX_S),  # httpx counts from byte to byte: a server that trickles would hold us for ever
            httpx.AsyncClient(verify=verify, timeout=MAX_S, trust_env=False) as client,
            client.stream(method, url, content=body, headers=headers) as answer,
        ):
            content = await _read(answer)
    except TimeoutError as error:
        raise LinkError(
            f"{url}: no whole answer in {MAX_S:g} s", hint="is this an Ommatid server, and is the network good enough?"
        ) from error
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    answered(httpx.Response(answer.status_code, content=content, request=answer.request))
    return content


async def _read(answer: httpx.Response) -> bytes:
    """Return the bytes as they were sent: what is small when it is packed may be large when it is unpacked."""
    content = b""
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_BYTES:
            raise LinkError(f"{answer.url}: more than {MAX_BYTES} bytes", hint="is this an Ommatid server?")
    return content
