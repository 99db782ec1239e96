"""A real Mosquitto on a loopback port, with mTLS and the ACL of the fleet, and a CA to issue its certificates.

Takes no part of the fleet server: tests of the session and of the agent stand without it.
"""

import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ommatid.mqtt import Broker
from tests.support.programs import until

FROM_1970 = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
IN_2100 = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
SERVER = "fleet-server"


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
        self.certificate = (
            _builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_ca_usage(), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / "ca.crt"
        self.path.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        """Return the CA's certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Write a key and a certificate for `name`, good for client and server on loopback; return (crt, key)."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(key.public_key(), name)
        crt, pem = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return crt, pem

    def sign(self, public_key: ec.EllipticCurvePublicKey, name: str, until: dt.datetime = IN_2100) -> x509.Certificate:
        """Return a certificate for a public key."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            _builder(subject, self.certificate.subject, public_key, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Mosquitto:
    """One broker process; `kill` and `start` again keep port and files."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = authority
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        crt, key = authority.issue("localhost")
        acl = folder / "acl"
        acl.write_text(
            f"user {SERVER}\ntopic readwrite om/v1/#\n\n"
            + "".join(f"pattern write om/v1/+/+/%u/{c}\n" for c in ("state", "reported", "window", "event", "reply"))
            + "".join(f"pattern read om/v1/+/+/%u/{c}\n" for c in ("desired", "cmd", "ack"))
        )
        self._config = folder / "mosquitto.conf"
        # Started by root, Mosquitto would otherwise become a user that cannot read the test's folder.
        self._config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\ncafile {authority.path}\ncertfile {crt}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\nuse_username_as_clientid true\n"
            f"allow_anonymous false\nacl_file {acl}\nlog_dest stderr\n"
        )

    def start(self) -> None:
        """Start the broker and wait until it listens."""
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(self._config)], stderr=log, stdout=log)
        until(lambda: listens(self.port), f"Mosquitto, see {self._folder}", 10)

    def kill(self) -> None:
        """End the broker as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def as_client(self, identity: str) -> Broker:
        """Return the address together with a certificate for `identity`."""
        crt, key = self.authority.issue(identity)
        return Broker("127.0.0.1", self.port, self.authority.path, crt, key)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody answers on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    until: dt.datetime = IN_2100,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM_1970)
        .not_valid_after(until)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
