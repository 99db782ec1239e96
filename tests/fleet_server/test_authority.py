"""The fleet's certificate authority."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleet_server.authority import Authority, CertificateRefusedError, check_proof, common_name, serial_text
from ommatid.errors import StorageError
from tests.support.fake_device import request_certificate

NOW = datetime(2027, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=90)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", NOW)


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_device_certificate_is_valid_on_a_device_without_a_clock(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    issued = authority.issue_device(request_certificate(key, "cam"), "cam", NOW, LIFE)

    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc == NOW + LIFE == issued.expires_at


def test_the_name_in_a_request_is_not_believed(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    issued = authority.issue_device(request_certificate(key, "fleet-server"), "cam", NOW, LIFE)

    assert common_name(x509.load_pem_x509_certificate(issued.pem.encode())) == "cam"


def test_a_request_for_a_weak_key_is_refused(authority: Authority) -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())

    with pytest.raises(CertificateRefusedError, match="P-256"):
        authority.issue_device(signed.public_bytes(serialization.Encoding.PEM).decode(), "cam", NOW, LIFE)


@pytest.mark.parametrize("text", ["", "not PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_a_damaged_request_is_refused(authority: Authority, text: str) -> None:
    with pytest.raises(CertificateRefusedError):
        authority.issue_device(text, "cam", NOW, LIFE)


EC_KEY = bytes.fromhex("06072a8648ce3d0201")
P_256 = bytes.fromhex("06082a8648ce3d030107")
VERSION_3 = bytes.fromhex("a003020102")


@pytest.mark.parametrize("known", [EC_KEY, P_256], ids=["kind of key", "curve"])
def test_a_request_with_what_nobody_knows_is_refused(
    authority: Authority, key: ec.EllipticCurvePrivateKey, known: bytes
) -> None:
    form = serialization.Encoding.DER
    content = x509.load_pem_x509_csr(request_certificate(key, "cam-1").encode()).public_bytes(form)
    assert known in content

    with pytest.raises(CertificateRefusedError):
        authority.issue_device(
            pem(content.replace(known, known[:-1] + b"\x77"), "CERTIFICATE REQUEST"), "cam-1", NOW, LIFE
        )


@pytest.mark.parametrize("known", [EC_KEY, P_256, VERSION_3], ids=["kind of key", "curve", "version"])
def test_a_certificate_with_what_nobody_knows_is_not_recognised(
    authority: Authority, key: ec.EllipticCurvePrivateKey, known: bytes
) -> None:
    issued = authority.issue_device(request_certificate(key, "cam-1"), "cam-1", NOW, LIFE)
    content = x509.load_pem_x509_certificate(issued.pem.encode()).public_bytes(serialization.Encoding.DER)
    assert known in content

    with pytest.raises(CertificateRefusedError):
        authority.recognise(pem(content.replace(known, known[:-1] + b"\x77"), "CERTIFICATE"))


def pem(content: bytes, label: str) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n"


def test_an_expired_certificate_is_still_recognised(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    issued = authority.issue_device(request_certificate(key, "cam"), "cam", NOW - 20 * LIFE, LIFE)

    assert serial_text(authority.recognise(issued.pem)) == issued.serial


def test_a_certificate_of_another_fleet_is_not_recognised(
    authority: Authority, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    stranger = Authority.create(tmp_path / "stranger", NOW)
    issued = stranger.issue_device(request_certificate(key, "cam"), "cam", NOW, LIFE)

    with pytest.raises(CertificateRefusedError, match="not one of this fleet"):
        authority.recognise(issued.pem)


def test_proof_needs_the_certificates_own_key(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    issued = authority.issue_device(request_certificate(key, "cam"), "cam", NOW, LIFE)
    certificate = authority.recognise(issued.pem)
    algorithm = ec.ECDSA(hashes.SHA256())

    check_proof(certificate, key.sign(b"request", algorithm), b"request")
    with pytest.raises(CertificateRefusedError):
        check_proof(certificate, ec.generate_private_key(ec.SECP256R1()).sign(b"request", algorithm), b"request")
    with pytest.raises(CertificateRefusedError):
        check_proof(certificate, key.sign(b"request", algorithm), b"another request")


def test_the_revocation_list_names_what_is_revoked(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    issued = authority.issue_device(request_certificate(key, "cam"), "cam", NOW, LIFE)

    listed = x509.load_pem_x509_crl(authority.revocation_list([(issued.serial, NOW)], NOW))

    assert listed.get_revoked_certificate_by_serial_number(int(issued.serial, 16)) is not None
    assert listed.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type] # it is an EC key


def test_a_stored_authority_is_the_same_again(authority: Authority, tmp_path: Path) -> None:
    assert Authority.load(tmp_path / "authority").digest == authority.digest
    assert (tmp_path / "authority" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_authority_is_one_clear_error(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "authority" / "ca.key").write_text("damaged")

    with pytest.raises(StorageError, match="CA cannot be read"):
        Authority.load(tmp_path / "authority")
    assert authority.digest
