"""Get a new certificate before the old one ends, or after: the proof is the key, not the date."""

import base64
import logging
from datetime import datetime
from typing import Final
from urllib.parse import urljoin

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from agent.clock import Clock
from agent.enroll import certified_at
from agent.identity import Identity, check_certificate, key_and_request, now_utc, write_public, write_secret
from agent.server_errors import answered, unreachable
from ommatid.contract.enrolment import RenewAnswer, RenewRequest
from ommatid.disk import Disk
from ommatid.errors import LinkError

RENEWED_AFTER: Final = 2 / 3

logger = logging.getLogger(__name__)


def due(certified: datetime, ends: datetime, now: datetime) -> bool:
    """Tell whether two thirds of a certificate's life are over.

    Its life counts from the day that it came: `not before` is 1970 in every certificate of a fleet.
    """
    return now >= certified + (ends - certified) * RENEWED_AFTER


def renew_if_due(identity: Identity, disk: Disk, clock: Clock, *, force: bool = False) -> Identity | None:
    """Renew the certificate if it is time; return the identity as it is then, or None when it was not time.

    Raises:
        LinkError: The server is not there, or refuses.
        BadInputError: What came is not a certificate for this device; the old one stays.
        StorageError: The disk cannot be written; the old one stays.
    """
    old = identity.files.certificate.read_text()
    ends = x509.load_pem_x509_certificate(old.encode()).not_valid_after_utc
    if not force and not due(identity.enrolment.certified_at, ends, now_utc(clock.wall_s())):
        return None
    device = identity.enrolment.device
    key, csr = key_and_request(identity.files, device, disk)
    signature = base64.b64encode(key.sign(csr.encode(), ec.ECDSA(hashes.SHA256()))).decode()
    body = RenewRequest(certificate_pem=old, csr_pem=csr, signature=signature)
    fresh = _ask(identity, body).certificate_pem
    check_certificate(fresh, identity.files.ca.read_text(), device, key)
    write_public(disk, identity.files.certificate, fresh)
    enrolment = identity.enrolment.model_copy(update={"certified_at": certified_at(clock)})
    write_secret(disk, identity.files.enrolment, enrolment.model_dump_json(indent=2).encode())
    logger.info("%s: certificate renewed", device)
    return Identity(identity.files, enrolment)


def _ask(identity: Identity, body: RenewRequest) -> RenewAnswer:
    url = urljoin(identity.enrolment.url, "/v1/renew")
    try:
        with identity.http_client() as client:
            answer = client.post(
                url, content=body.model_dump_json().encode(), headers={"Content-Type": "application/json"}
            )
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    answered(answer)
    try:
        return RenewAnswer.model_validate_json(answer.content)
    except ValidationError as error:
        raise LinkError(f"{url}: not the answer that was expected", hint="is this an Ommatid server?") from error
