"""The HTTP API from the other side: what the client commands of `fleet` call."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from fleet_server.profile import Profile
from ommatid.cli import read_secret
from ommatid.errors import BadInputError, LinkError
from ommatid.text import in_words

CHUNK: Final = 256 * 1024
TIMEOUT: Final = httpx.Timeout(30.0, write=120.0)


class ServerRefusedError(LinkError):
    """The server answers, and says no; `kind` is the class of its error."""

    def __init__(self, status: int, kind: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.kind = kind


class FleetClient:
    """One operator's connection to one server."""

    def __init__(self, profile: Profile) -> None:
        """Prepare a connection.

        Raises:
            BadInputError: The CA or the token cannot be read.
        """
        token = read_secret(str(profile.token_file), "operator's token")
        self._server = profile.server
        self._http = httpx.Client(
            base_url=profile.server,
            verify=_trust(profile.ca),
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Return the document at `path`.

        Raises:
            LinkError: The server cannot be reached, or refuses.
        """
        return self._ask("GET", path, params=parameters).json()

    def post(self, path: str, document: object = None) -> Any:  # noqa: ANN401 - any JSON document
        """Send a document; return the answer, None when it is empty.

        Raises:
            LinkError: The server cannot be reached, or refuses.
        """
        answer = self._ask("POST", path, json=document if document is not None else {})
        return answer.json() if answer.content else None

    def release_document(self, name: str) -> bytes:
        """Return a document of the release repository."""
        return self._ask("GET", f"/v1/tuf/release/{name}").content

    def has_bundle(self, sha256: str) -> bool:
        """Tell whether the server has a bundle."""
        try:
            self._ask("HEAD", f"/v1/bundles/{sha256}")
        except ServerRefusedError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def upload(self, path: Path, sha256: str, sent: Callable[[int], None]) -> None:
        """Send a bundle; `sent` is told of each piece that went."""
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        self._ask("PUT", f"/v1/bundles/{sha256}", content=_pieces(path, sent), headers=headers)

    def publish(self, targets: bytes) -> list[dict[str, Any]]:
        """Send a signed releases document; return the releases that it adds."""
        headers = {"Content-Type": "application/json"}
        answer = self._ask("POST", "/v1/releases", content=targets, headers=headers)
        return list(answer.json())

    def new_token(self, *, expires_s: float, uses: int, tags: tuple[str, ...]) -> str:
        """Return a new enrolment token."""
        return str(self.post("/v1/tokens", {"expires_s": expires_s, "uses": uses, "tags": tags})["token"])

    def revoke(self, device: str) -> None:
        """Put a device out of the fleet."""
        self.post(f"/v1/devices/{device}/revoke")

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - passed on
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise LinkError(
                f"{self._server}: the server cannot be reached ({in_words(error)})",
                hint="is `fleet serve` running there?",
            ) from error
        if answer.is_success:
            return answer
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> ServerRefusedError:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    detail = document.get("detail") or f"{answer.request.url}: {answer.reason_phrase}"
    hint = document.get("hint")
    kind = str(document.get("title") or "HttpError")
    return ServerRefusedError(answer.status_code, kind, str(detail), hint=str(hint) if hint else None)


def _pieces(path: Path, sent: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            sent(len(chunk))


def _trust(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise BadInputError(
            f"{ca}: the server's CA cannot be read: {error}", hint="check `ca` in operator.toml"
        ) from error
