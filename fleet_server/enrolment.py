"""Take devices into the fleet by one-time tokens, renew their certificates, and put them out again."""

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server.authority import (
    SERVER_IDENTITY,
    Authority,
    CertificateRefusedError,
    Issued,
    check_proof,
    common_name,
    requested_key_digest,
    serial_text,
)
from fleet_server.credentials import hash_secret, matches, new_secret
from fleet_server.database.engine import Database
from fleet_server.database.models import Audit, Certificate, Device, EnrolmentToken
from fleet_server.director import Director
from fleet_server.errors import ConflictError, EnrolmentRefusedError, NotFoundError
from fleet_server.settings import Settings
from ommatid.contract.enrolment import BrokerAddress, EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest

logger = logging.getLogger(__name__)

REFUSED_HINT = "make a new token with `fleet token`"


class Enrolment:
    """Issues tokens and certificates of one tenant."""

    def __init__(
        self,
        database: Database,
        authority: Authority,
        director: Director,
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._authority = authority
        self._director = director
        self._settings = settings
        self._now = now

    def new_token(self, *, life: timedelta, uses: int, tags: Sequence[str], who: str) -> str:
        """Return the secret of a new enrolment token."""
        secret = new_secret()
        now = self._now()
        with self._database.write() as session:
            session.add(
                EnrolmentToken(
                    tenant=self._settings.tenant,
                    secret_hash=hash_secret(secret),
                    created_at=now,
                    expires_at=now + life,
                    uses_left=uses,
                    tags=list(tags),
                )
            )
            self._audit(session, who, "token", "enrolment", uses=uses, life_s=life.total_seconds())
        return secret

    def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Take a device in; a device that lost the answer asks again, with the same token and key.

        Raises:
            EnrolmentRefusedError: The token is unknown, expired or used up.
            ConflictError: There is such a device already.
            CertificateRefusedError: The certificate request is no good.
        """
        http_token = new_secret()
        with self._database.write() as session:
            token = self._valid_token(session, request.token_secret)
            mark = f"{token.secret_hash} {requested_key_digest(request.csr_pem)}"
            device = session.get(Device, request.device)
            if device is None or device.revoked_at is not None or device.enrolled_with != mark:
                device = self._newcomer(device, request.device, token)
            device.enrolled_with = mark
            issued = self._authority.issue_device(request.csr_pem, request.device, self._now(), self._life)
            device.enrolled_at = self._now()
            device.http_token_hash = hash_secret(http_token)
            device.certificate_serial = issued.serial
            device.revoked_at = None
            device.tags = sorted({*token.tags, *request.tags})
            session.add(device)
            session.flush()
            self._remember(session, device.id, issued)
            self._director.assign(session, device, None)
            self._audit(session, f"device:{device.id}", "enrol", device.id, tags=device.tags)
        logger.info("%s: enrolled, tags %s", device.id, ",".join(device.tags) or "none")
        return EnrolAnswer(
            device=device.id,
            tenant=device.tenant,
            certificate_pem=issued.pem,
            ca_pem=self._authority.pem,
            broker=BrokerAddress(host=self._settings.name, port=self._settings.mqtt_port),
            http_token=http_token,
            server_name=self._settings.name,
        )

    def renew(self, request: RenewRequest) -> RenewAnswer:
        """Give a device that still has its key a new certificate; the old one may have expired.

        Raises:
            CertificateRefusedError: The certificate is revoked or not ours, or the key is not the device's.
        """
        certificate = self._authority.recognise(request.certificate_pem)
        try:
            signature = base64.b64decode(request.signature, validate=True)
        except binascii.Error as error:
            raise CertificateRefusedError("the signature is not base64") from error
        check_proof(certificate, signature, request.csr_pem.encode())
        with self._database.write() as session:
            row = session.get(Certificate, serial_text(certificate))
            device = session.get(Device, common_name(certificate))
            if row is None or device is None or row.device_id != device.id or row.revoked_at or device.revoked_at:
                raise CertificateRefusedError(
                    f"{common_name(certificate)}: this certificate is revoked or unknown",
                    hint="enrol the device again with a new token",
                )
            issued = self._authority.issue_device(request.csr_pem, device.id, self._now(), self._life)
            device.certificate_serial = issued.serial
            self._remember(session, device.id, issued)
            self._audit(session, f"device:{device.id}", "renew", device.id, serial=issued.serial)
        logger.info("%s: certificate renewed until %s", device.id, issued.expires_at.date())
        return RenewAnswer(certificate_pem=issued.pem)

    def revoke(self, device_id: str, who: str) -> None:
        """Put a device out: its certificates and its HTTP token are void. The caller refreshes the broker.

        Raises:
            NotFoundError: There is no such device.
        """
        with self._database.write() as session:
            device = session.get(Device, device_id)
            if device is None or device.tenant != self._settings.tenant:
                raise NotFoundError(f"there is no device {device_id[:80]!r}", hint="`fleet devices` lists them")
            device.revoked_at = self._now()
            device.online = False
            valid = (Certificate.device_id == device_id, Certificate.revoked_at.is_(None))
            session.execute(update(Certificate).where(*valid).values(revoked_at=self._now()))
            self._audit(session, who, "revoke", device_id)
        logger.warning("%s: revoked by %s", device_id, who)

    def revocation_list(self) -> bytes:
        """Return the list of revoked certificates, PEM."""
        with self._database.read() as session:
            statement = select(Certificate).where(Certificate.revoked_at.is_not(None))
            revoked = [(row.serial, row.revoked_at) for row in session.scalars(statement) if row.revoked_at]
        return self._authority.revocation_list(revoked, self._now())

    @property
    def _life(self) -> timedelta:
        return timedelta(days=self._settings.certificate_days)

    def _valid_token(self, session: Session, secret: str) -> EnrolmentToken:
        statement = select(EnrolmentToken).where(EnrolmentToken.secret_hash == hash_secret(secret))
        token = session.scalars(statement).one_or_none()
        if token is None or not matches(secret, token.secret_hash):
            raise EnrolmentRefusedError("this enrolment token is unknown", hint=REFUSED_HINT)
        if token.expires_at <= self._now():
            raise EnrolmentRefusedError(f"this enrolment token expired at {token.expires_at:%F %T}Z", hint=REFUSED_HINT)
        return token

    def _newcomer(self, known: Device | None, device_id: str, token: EnrolmentToken) -> Device:
        """Return the row of a device that joins, and count the token's use."""
        if token.uses_left < 1:
            raise EnrolmentRefusedError("this enrolment token is used up", hint=REFUSED_HINT)
        if device_id == SERVER_IDENTITY or (known is not None and known.revoked_at is None):
            raise ConflictError(
                f"there is a device {device_id} already",
                hint=f"choose another --device, or put the old one out: `fleet revoke {device_id}`",
            )
        if known is not None and known.tenant != token.tenant:
            raise ConflictError(f"the name {device_id} is taken", hint="choose another --device")
        token.uses_left -= 1
        return known or Device(id=device_id, tenant=token.tenant)

    def _remember(self, session: Session, device_id: str, issued: Issued) -> None:
        session.add(
            Certificate(serial=issued.serial, device_id=device_id, issued_at=self._now(), expires_at=issued.expires_at)
        )

    def _audit(self, session: Session, who: str, what: str, subject: str, **detail: object) -> None:
        session.add(
            Audit(tenant=self._settings.tenant, at=self._now(), who=who, what=what, subject=subject, detail=detail)
        )
