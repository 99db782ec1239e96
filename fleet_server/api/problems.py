"""Errors as RFC 9457 problem documents: the class, what happened, and what to do now."""

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet_server.authority import CertificateRefusedError
from fleet_server.errors import (
    ConflictError,
    EnrolmentRefusedError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
)
from fleet_server.signing.errors import (
    CounterBackError,
    NotSignedError,
    PublishError,
    TargetChangedError,
    VersionBackError,
)
from ommatid.errors import ContractError, LinkError, OmmatidError, StorageError

logger = logging.getLogger(__name__)

STATUSES: Final[tuple[tuple[type[OmmatidError], int], ...]] = (
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (EnrolmentRefusedError, 403),
    (CertificateRefusedError, 403),
    (NotSignedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (VersionBackError, 409),
    (CounterBackError, 409),
    (TargetChangedError, 409),
    (TooLargeError, 413),
    (PublishError, 422),
    (ContractError, 422),
    (StorageError, 507),
    (LinkError, 503),
)
"""The first class that fits gives the status; anything else expected is 400."""


def status_of(error: OmmatidError) -> int:
    """Return the HTTP status of an expected error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 400)


def problem(status: int, title: str, detail: str, hint: str | None = None) -> JSONResponse:
    """Return a problem document; `title` is the class of the error."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if hint:
        body["hint"] = hint
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None  # noqa: PLR2004
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    @app.exception_handler(OmmatidError)
    def expected(_request: Request, error: OmmatidError) -> JSONResponse:
        return problem(status_of(error), type(error).__name__, str(error), error.hint)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem(422, "InvalidRequestError", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def refused(_request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, "HttpError", str(error.detail))

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "ServerError", "the server made a mistake", "its log says more")
