"""The fleet's certificate authority: it says who the server, the broker and each device are.

Certificates are valid from 1970 on, so that a device without a clock can still connect; what limits them is their end
and the revocation list. EC P-256 throughout: every TLS stack on every board has it.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ommatid.contract.digests import sha256_bytes
from ommatid.errors import BadInputError, StorageError

SINCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
CA_LIFE: Final = timedelta(days=20 * 365)
SERVER_LIFE: Final = timedelta(days=2 * 365)
CRL_LIFE: Final = timedelta(days=3650)
"""Mosquitto refuses everybody once its list has expired, so the list outlives the server's attention."""

SERVER_IDENTITY: Final = "fleet-server"
"""Client id of the server on the broker; no device may be called so."""


class CertificateRefusedError(BadInputError):
    """A certificate or a request for one is not acceptable."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate for a device."""

    pem: str
    serial: str
    expires_at: datetime


class Authority:
    """The CA's key and certificate, and what it signs."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @property
    def pem(self) -> str:
        """Return the CA's certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def digest(self) -> str:
        """Return the sha256 of the CA's certificate, DER: what an enrolment token pins."""
        return sha256_bytes(self.certificate.public_bytes(serialization.Encoding.DER))

    @classmethod
    def create(cls, folder: Path, now: datetime) -> "Authority":
        """Make a new CA in `folder`, which must not hold one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ommatid fleet CA")])
        builder = _builder(name, name, key.public_key(), now + CA_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        authority = cls(key, builder.sign(key, hashes.SHA256()))
        folder.mkdir(parents=True, exist_ok=True)
        write_secret(folder / "ca.key", private_pem(key))
        (folder / "ca.crt").write_text(authority.pem)
        return authority

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read the CA of `folder`.

        Raises:
            StorageError: It is missing or damaged.
        """
        try:
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{folder}: the CA cannot be read: {error}", hint="restore this folder from a backup"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StorageError(f"{folder}/ca.key is not an EC key", hint="restore this folder from a backup")
        return cls(key, certificate)

    def issue_own(self, folder: Path, stem: str, identity: str, names: Sequence[str], now: datetime) -> None:
        """Write key and certificate of one of the server's own programs: `stem`.key and `stem`.crt."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(identity), self.certificate.subject, key.public_key(), now + SERVER_LIFE)
        builder = self._leaf(
            builder, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        write_secret(folder / f"{stem}.key", private_pem(key))
        (folder / f"{stem}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue_device(self, csr_pem: str, device: str, now: datetime, life: timedelta) -> Issued:
        """Sign a device's request; the name is ours, whatever the request says.

        Raises:
            CertificateRefusedError: The request is damaged, not signed by its own key, or not for a P-256 key.
        """
        key = _requested_key(csr_pem)
        expires_at = (now + life).replace(microsecond=0)
        builder = _builder(_subject(device), self.certificate.subject, key, expires_at)
        builder = self._leaf(builder, key, ExtendedKeyUsageOID.CLIENT_AUTH)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(pem, serial_text(certificate), expires_at)

    def recognise(self, certificate_pem: str) -> x509.Certificate:
        """Return a certificate that this CA signed, expired or not.

        Raises:
            CertificateRefusedError: It is damaged, or somebody else signed it.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise CertificateRefusedError(
                "this certificate is not one of this fleet", hint="enrol the device again with a new token"
            ) from error
        return certificate

    def revocation_list(self, serials: Iterable[tuple[str, datetime]], now: datetime) -> bytes:
        """Return the signed list of revoked certificates, PEM."""
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.certificate.subject, last_update=SINCE, next_update=now + CRL_LIFE
        )
        for serial, revoked_at in serials:
            entry = x509.RevokedCertificateBuilder(serial_number=int(serial, 16), revocation_date=revoked_at)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _leaf(
        self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, *uses: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
        )


def requested_key_digest(csr_pem: str) -> str:
    """Return the sha256 of the public key that a certificate request is for.

    Raises:
        CertificateRefusedError: It is damaged, not signed by its own key, or not for a P-256 key.
    """
    key = _requested_key(csr_pem)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return sha256_bytes(key.public_bytes(serialization.Encoding.DER, form))


def serial_text(certificate: x509.Certificate) -> str:
    """Return a serial number as the database keeps it."""
    return f"{certificate.serial_number:x}"


def common_name(certificate: x509.Certificate) -> str:
    """Return whom a certificate names."""
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def check_proof(certificate: x509.Certificate, signature: bytes, content: bytes) -> None:
    """Check that the holder of the certificate's key signed `content`.

    Raises:
        CertificateRefusedError: It did not.
    """
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise CertificateRefusedError("this certificate holds no EC key", hint="enrol the device again")
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise CertificateRefusedError(
            "the request is not signed by the key of this certificate", hint="enrol the device again with a new token"
        ) from error


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateRefusedError(f"the certificate request cannot be read: {error}") from error
    if not valid:
        raise CertificateRefusedError("the certificate request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefusedError("the certificate request is not for an EC P-256 key")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, not_after: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=SINCE,
        not_valid_after=not_after,
    )


def _subject(identity: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
