"""Join a fleet with a one-time token: believe nothing but the digests in it, and make the key here.

The first request goes over unverified TLS, because there is no CA yet; what it brings is believed only if it has the
digest in the token. Everything after that is verified against that CA, in 1970 too: the fleet's certificates are
valid from then on.
"""

import re
import secrets
import socket
import ssl
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pydantic import BaseModel, ValidationError

from agent.clock import Clock
from agent.identity import (
    Enrolment,
    Identity,
    IdentityFolder,
    check_certificate,
    key_and_request,
    now_utc,
    pinned,
    write_public,
    write_secret,
)
from agent.stranger import ask
from ommatid.contract.digests import sha256_bytes
from ommatid.contract.enrolment import EnrolAnswer, EnrolmentToken, EnrolRequest, Roots, check_tag
from ommatid.contract.topics import IDENTIFIER
from ommatid.contract.trust.clock import BUILD_DATE
from ommatid.disk import Disk
from ommatid.errors import BadInputError, LinkError, TrustError

B = TypeVar("B", bound=BaseModel)


class WrongServerError(TrustError):
    """The server is not the one that the token was made for."""

    def __init__(self, url: str, what: str) -> None:
        """Name the server, and what it showed that the token does not know."""
        super().__init__(
            f"{url}: its {what} is not the one that the token names; nothing was sent to it",
            hint="somebody may be between this device and the server, or the server was made anew: "
            "check the address, then make a new token",
        )


def enroll(
    state_dir: Path, token: EnrolmentToken, disk: Disk, clock: Clock, *, device: str | None, tags: tuple[str, ...]
) -> Identity:
    """Make this device a member of the fleet; doing it again with the same server changes nothing.

    Raises:
        BadInputError: The device id or a tag is not one, or this device is enrolled elsewhere.
        LinkError: The server is not there, or refuses: the token is used up or expired, the id is taken.
        TrustError: The server is not the one of the token.
        StorageError: The state directory cannot be written.
    """
    if (known := already_enrolled(state_dir, token, device)) is not None:
        return known
    name = device or default_device()
    if not IDENTIFIER.fullmatch(name):
        raise BadInputError(f"--device {name}: not a device id", hint="use a-z, 0-9 and '-', at most 63 characters")
    for tag in tags:
        check_tag(tag)
    files = IdentityFolder(state_dir / "identity")
    disk.mkdir(files.path)
    files.path.chmod(0o700)
    ca_pem = fetch_ca(token)
    key, request = key_and_request(files, name, disk)
    trusted = pinned(ca_pem)
    roots = fetch_roots(trusted, token)
    body = EnrolRequest(token_secret=token.secret, device=name, csr_pem=request, tags=tags)
    answer = _ask("POST", urljoin(token.url, "/v1/enrol"), trusted, EnrolAnswer, body)
    check_certificate(answer.certificate_pem, ca_pem, answer.device, key)
    write_public(disk, files.ca, ca_pem)
    write_public(disk, files.release_root, roots.release)
    write_public(disk, files.director_root, roots.director)
    write_public(disk, files.certificate, answer.certificate_pem)
    enrolment = Enrolment(
        url=token.url,
        broker=answer.broker,
        tenant=answer.tenant,
        device=answer.device,
        http_token=answer.http_token,
        tags=tags,
        certified_at=certified_at(clock),
    )
    write_secret(disk, files.enrolment, enrolment.model_dump_json(indent=2).encode())
    return Identity(files, enrolment)


def already_enrolled(state_dir: Path, token: EnrolmentToken, device: str | None) -> Identity | None:
    """Return the identity when this device is a member of the token's fleet already.

    Raises:
        BadInputError: It is enrolled, but elsewhere or under another id.
    """
    known = Identity.load(state_dir)
    if known is None:
        return None
    same_ca = _ca_digest(known.files.ca.read_text()) == token.ca_sha256
    if same_ca and device in (None, known.enrolment.device):
        return known
    raise BadInputError(
        f"{state_dir}: enrolled already, as {known.enrolment.device} at {known.enrolment.url}",
        hint=f"to enrol it anew, remove the folder {known.files.path} first",
    )


def fetch_ca(token: EnrolmentToken) -> str:
    """Return the fleet's CA as PEM, once its digest is that in the token.

    Raises:
        WrongServerError: It is another.
        LinkError: The server is not there.
    """
    # Nothing is believed of this answer but what has the token's digest.
    answer = ask("GET", urljoin(token.url, "/v1/enrol/ca"), None)
    try:
        text = answer.decode()
        digest = _ca_digest(text)
    except ValueError as error:
        raise WrongServerError(token.url, "CA") from error
    if digest != token.ca_sha256:
        raise WrongServerError(token.url, "CA")
    return x509_pem(text)


def fetch_roots(trusted: ssl.SSLContext, token: EnrolmentToken) -> Roots:
    """Return both trust roots, once their digests are those in the token.

    Raises:
        WrongServerError: One is another.
        LinkError: The server is not there.
    """
    roots = _ask("GET", urljoin(token.url, "/v1/enrol/roots"), trusted, Roots)
    for what, text, expected in (
        ("release root", roots.release, token.release_root_sha256),
        ("director root", roots.director, token.director_root_sha256),
    ):
        if sha256_bytes(text.encode()) != expected:
            raise WrongServerError(token.url, what)
    return roots


def default_device() -> str:
    """Return an id from the host's name and chance: ids are unique over all tenants, and cards get cloned."""
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:50]
    return f"{host or 'device'}-{secrets.token_hex(3)}"


def certified_at(clock: Clock) -> datetime:
    """Return when a certificate came: never earlier than this release was made, whatever the clock says."""
    return max(now_utc(clock.wall_s()), BUILD_DATE)


def x509_pem(text: str) -> str:
    """Return the one certificate in a PEM text, and nothing else of that text."""
    return x509.load_pem_x509_certificate(text.encode()).public_bytes(serialization.Encoding.PEM).decode()


def _ca_digest(pem: str) -> str:
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def _ask(method: str, url: str, trusted: ssl.SSLContext, kind: type[B], body: BaseModel | None = None) -> B:
    content = ask(method, url, trusted, body.model_dump_json().encode() if body is not None else None)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise LinkError(
            f"{url}: not the answer that was expected: {error.errors()[0]['msg']}", hint="is this an Ommatid server?"
        ) from error
