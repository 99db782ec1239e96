"""Who this device is: its key and certificate, the CA and the two trust roots that it believes, and where to connect.

All lies in `STATE/identity/`, readable by the agent alone. `enrolment.json` is written last: while it is missing, the
device is not enrolled, whatever else lies there.
"""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, ValidationError

from ommatid.contract.enrolment import BrokerAddress, Tag
from ommatid.contract.messages import Identifier
from ommatid.contract.topics import DeviceTopics
from ommatid.disk import Disk, replace_file
from ommatid.errors import BadInputError, StorageError
from ommatid.mqtt import Broker

ENROLMENT: Final = "enrolment.json"


class Enrolment(BaseModel):
    """Where this device belongs; `http_token` is a secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    broker: BrokerAddress
    tenant: Identifier
    device: Identifier
    http_token: str
    tags: tuple[Tag, ...] = ()
    certified_at: datetime


@dataclass(frozen=True, slots=True)
class IdentityFolder:
    """The files of one identity."""

    path: Path

    @property
    def key(self) -> Path:
        """Return the device's private key."""
        return self.path / "device.key"

    @property
    def certificate(self) -> Path:
        """Return the device's certificate."""
        return self.path / "device.crt"

    @property
    def ca(self) -> Path:
        """Return the fleet's CA, the only one that is believed."""
        return self.path / "ca.crt"

    @property
    def release_root(self) -> Path:
        """Return the pinned root of the release repository."""
        return self.path / "release.root.json"

    @property
    def director_root(self) -> Path:
        """Return the pinned root of the director."""
        return self.path / "director.root.json"

    @property
    def enrolment(self) -> Path:
        """Return the file that completes an identity."""
        return self.path / ENROLMENT


@dataclass(frozen=True, slots=True)
class Identity:
    """A complete identity."""

    files: IdentityFolder
    enrolment: Enrolment

    @classmethod
    def load(cls, state_dir: Path) -> Self | None:
        """Return the identity in a state directory, or None before enrolment.

        Raises:
            BadInputError: It is damaged.
            StorageError: It may not be read.
        """
        files = IdentityFolder(state_dir / "identity")
        try:
            content = files.enrolment.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(
                f"{files.enrolment}: {error.strerror}", hint="run as the user who enrolled this device"
            ) from error
        try:
            return cls(files, Enrolment.model_validate_json(content))
        except ValidationError as error:
            raise BadInputError(
                f"{files.enrolment}: damaged: {error.errors()[0]['msg']}",
                hint="remove the folder `identity` and enrol this device again",
            ) from error

    @property
    def topics(self) -> DeviceTopics:
        """Return the MQTT topics of this device."""
        return DeviceTopics(self.enrolment.tenant, self.enrolment.device)

    @property
    def broker(self) -> Broker:
        """Return the broker, with this device's certificate."""
        address = self.enrolment.broker
        return Broker(address.host, address.port, self.files.ca, self.files.certificate, self.files.key)

    def http_client(self) -> httpx.Client:
        """Return a client that believes the pinned CA alone, and shows nothing but the token where it is asked for."""
        return httpx.Client(verify=pinned(self.files.ca.read_text()), timeout=30.0, trust_env=False)

    def bearer(self) -> dict[str, str]:
        """Return the header that proves this device to the HTTP API."""
        return {"Authorization": f"Bearer {self.enrolment.http_token}"}


def pinned(ca_pem: str) -> ssl.SSLContext:
    """Return a TLS context that believes one CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem)
    return context


def key_and_request(files: IdentityFolder, device: str, disk: Disk) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """Make the device's key, or take the one that an earlier attempt left; return it with a signing request, PEM.

    Raises:
        BadInputError: There is a key, but it cannot be read.
        StorageError: The disk cannot be written.
    """
    if not files.key.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        write_secret(disk, files.key, key_pem(made))
    key = load_key(files)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM).decode()


def load_key(files: IdentityFolder) -> ec.EllipticCurvePrivateKey:
    """Return the device's private key.

    Raises:
        BadInputError: It is missing or damaged.
    """
    try:
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(f"{files.key}: not readable as a key", hint="remove it and enrol again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInputError(f"{files.key}: not an elliptic-curve key", hint="remove it and enrol again")
    return key


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_secret(disk: Disk, path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, at no moment anyone else."""
    partial = path.with_name(f".{path.name}.secret")
    disk.unlink(partial)
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="check free space and permissions of this disk") from error
    disk.write(partial, content)
    disk.sync(partial)
    disk.rename(partial, path)
    disk.sync(path.parent)


def write_public(disk: Disk, path: Path, content: str) -> None:
    """Write a file that everybody may read."""
    replace_file(disk, path, content.encode())


def check_certificate(pem: str, ca_pem: str, device: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a received certificate once it is sure that it is ours.

    Raises:
        BadInputError: It is for another key or device, or was not made by the CA.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
    except Exception as error:  # cryptography has no common class for what may be wrong with a certificate
        raise BadInputError(f"the server's certificate for {device} is not of its CA: {error}") from error
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if [name.value for name in names] != [device] or certificate.public_key() != key.public_key():
        raise BadInputError(f"the server sent a certificate that is not for {device} and its key")
    return certificate


def now_utc(wall_s: float) -> datetime:
    """Return a moment with its zone."""
    return datetime.fromtimestamp(wall_s, UTC)
