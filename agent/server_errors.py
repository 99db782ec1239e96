"""Say in our words why the fleet server could not be asked, or said no."""

import ssl
from http import HTTPStatus
from typing import Any

import httpx

from ommatid.errors import LinkError
from ommatid.text import in_words


class ServerRefusedError(LinkError):
    """The server answers, and says no."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        """Keep the HTTP status beside the server's own words."""
        super().__init__(message, hint=hint)
        self.status = status


def answered(answer: httpx.Response) -> None:
    """Let a good answer pass.

    Raises:
        ServerRefusedError: It is not one; the server's own words are passed on.
    """
    if answer.is_success:
        return
    try:
        document = answer.json()
    except ValueError:
        document = None
    message, hint = _words(document)
    status = HTTPStatus(answer.status_code).phrase if answer.status_code in list(HTTPStatus) else "?"
    raise ServerRefusedError(
        answer.status_code,
        f"{answer.request.url}: {message or status} (HTTP {answer.status_code})",
        hint=hint,
    )


def unreachable(url: str, error: httpx.HTTPError) -> LinkError:
    """Return the error for a server that did not answer at all."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return LinkError(
                f"{url}: its certificate is not trusted: {cause.verify_message}",
                hint="the server is not the one this device was enrolled at, or goes by another name",
            )
        cause = cause.__cause__ or cause.__context__
    return LinkError(
        f"{url}: the server cannot be reached ({in_words(error)})",
        hint="is `fleet serve` running there, and does the network let this device reach it?",
    )


def _words(document: Any) -> tuple[str | None, str | None]:  # noqa: ANN401 - any JSON document
    """Return message and hint of an error document; neighbouring releases may nest them in `error` or `detail`."""
    if not isinstance(document, dict):
        return None, None
    for name in ("error", "detail"):
        inner = document.get(name)
        if isinstance(inner, dict):
            return _words(inner)
    hint = document.get("hint")
    message = next((document[name] for name in ("message", "reason", "detail", "error") if document.get(name)), None)
    return (str(message) if message else None), (str(hint) if hint else None)
