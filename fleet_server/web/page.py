"""The routes of the page: log in, look, steer, and the stream that keeps it live.

The session cookie is the operator's token: HttpOnly, Secure and SameSite=Strict, so that no script reads it and no
other site sends it. Steering also wants a header that a form on another site cannot set.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Cookie, Form, Header
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from fleet_server.access import Operator, operator_of, require
from fleet_server.api.depends import ServicesOf
from fleet_server.api.rollouts import RolloutId, desk_of
from fleet_server.errors import ForbiddenError, UnauthorizedError
from fleet_server.roles import Role
from fleet_server.services import Services
from fleet_server.web.assets import router as assets
from fleet_server.web.content import live_fragment, login_page, page

COOKIE: Final = "__Host-ommatid"
SESSION_S: Final = 12 * 3600
LOOK_S: Final = 0.25
"""How often a stream looks whether something changed; a look reads one number."""
BETWEEN_S: Final = 1.0
"""The shortest time between two pushes to one page."""
QUIET_S: Final = 10.0
"""The longest: ages move on, and a dead connection is noticed."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)
router.include_router(assets)

Token = Annotated[str | None, Cookie(alias=COOKIE)]


@router.get("/")
def show(parts: ServicesOf, token: Token = None) -> Response:
    """Show the fleet, or ask who is there."""
    try:
        operator = operator_of(parts.database, token)
    except UnauthorizedError:
        return RedirectResponse("/login", 303, HEADERS)
    return HTMLResponse(page(operator, _fragment(parts, operator)), headers=HEADERS)


@router.get("/login")
def ask() -> HTMLResponse:
    """Ask for a token."""
    return HTMLResponse(login_page(refused=False), headers=HEADERS)


@router.post("/login")
def log_in(parts: ServicesOf, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Begin a session."""
    try:
        operator_of(parts.database, token.strip())
    except UnauthorizedError:
        return HTMLResponse(login_page(refused=True), 401, HEADERS)
    response = RedirectResponse("/", 303, HEADERS)
    response.set_cookie(
        COOKIE, token.strip(), max_age=SESSION_S, path="/", secure=True, httponly=True, samesite="strict"
    )
    return response


@router.post("/logout")
def log_out() -> Response:
    """End the session."""
    response = RedirectResponse("/login", 303, HEADERS)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


@router.post("/page/rollouts/{rollout_id}/{step}", status_code=204)
def steer(
    parts: ServicesOf,
    rollout_id: RolloutId,
    step: Literal["pause", "resume", "abort"],
    token: Token = None,
    by_page: Annotated[str | None, Header(alias="HX-Request")] = None,
) -> None:
    """Pause, resume or abort a rollout; the stream shows what comes of it."""
    operator = operator_of(parts.database, token)
    require(operator, Role.OPERATOR)
    if by_page != "true":
        raise ForbiddenError("only the page itself may do this", hint="use the API with a bearer token")
    desk = desk_of(parts, operator)
    {"pause": desk.pause, "resume": desk.resume, "abort": desk.abort}[step](rollout_id)


@router.get("/v1/stream/page")
async def stream(parts: ServicesOf, token: Token = None) -> StreamingResponse:
    """Push the live part whenever the database changed."""
    await run_in_threadpool(operator_of, parts.database, token)
    return StreamingResponse(
        _pushes(parts, token), media_type="text/event-stream", headers={**HEADERS, "X-Accel-Buffering": "no"}
    )


async def _pushes(parts: Services, token: str | None) -> AsyncIterator[str]:
    shown = ""
    while not parts.changes.closed:
        seen, began = parts.changes.number, time.monotonic()
        try:
            operator = await run_in_threadpool(operator_of, parts.database, token)
        except UnauthorizedError:
            return  # the token was revoked; the page asks again and is sent to the log-in form
        fragment = await run_in_threadpool(_fragment, parts, operator)
        yield _event(fragment) if fragment != shown else ": nothing new\n\n"
        shown = fragment
        await asyncio.sleep(BETWEEN_S)
        # An Event would belong to this loop, but changes are made by threads that know no loop.
        while parts.changes.number == seen and time.monotonic() - began < QUIET_S:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


def _fragment(parts: Services, operator: Operator) -> str:
    with parts.database.read() as session:
        return live_fragment(session, operator, parts.now())


def _event(fragment: str) -> str:
    """Return one server-sent event; each line of its data has a prefix."""
    lines = "".join(f"data: {line}\n" for line in fragment.splitlines() if line.strip())
    return f"{lines}\n"
