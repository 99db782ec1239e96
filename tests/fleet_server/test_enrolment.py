"""Devices join by one-time tokens, over the real HTTP API."""

import base64
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ommatid.contract.digests import sha256_bytes
from ommatid.contract.enrolment import EnrolmentToken, EnrolRequest, Roots
from tests.support.fake_device import FakeDevice, request_certificate
from tests.support.fleet_server import FleetServer


def ask_to_enrol(
    server: FleetServer, token: EnrolmentToken, name: str, key: ec.EllipticCurvePrivateKey | None = None
) -> httpx.Response:
    csr = request_certificate(key or ec.generate_private_key(ec.SECP256R1()), name)
    with server.http() as http:
        body = EnrolRequest(token_secret=token.secret, device=name, csr_pem=csr).model_dump(mode="json")
        return http.post("/v1/enrol", json=body)


def test_a_token_pins_what_the_server_shows(server: FleetServer) -> None:
    token = server.token()

    with server.http() as http:
        ca = http.get("/v1/enrol/ca").text
        roots = Roots.model_validate_json(http.get("/v1/enrol/roots").content)
        of_director = http.get("/v1/tuf/director/1.root.json").content
        of_release = http.get("/v1/tuf/release/1.root.json").content

    certificate = x509.load_pem_x509_certificate(ca.encode())
    assert token.ca_sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    assert token.release_root_sha256 == sha256_bytes(roots.release.encode()) == sha256_bytes(of_release)
    assert token.director_root_sha256 == sha256_bytes(roots.director.encode()) == sha256_bytes(of_director)


def test_a_token_lets_as_many_devices_join_as_it_says(server: FleetServer) -> None:
    token = server.token(uses=2)

    answers = [ask_to_enrol(server, token, f"uses-{number}") for number in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert "used up" in answers[2].json()["detail"]


def test_an_expired_token_is_refused(server: FleetServer) -> None:
    token = server.token(expires_s=1e-6)

    answer = ask_to_enrol(server, token, "late")

    assert answer.status_code == 403
    assert answer.json()["title"] == "EnrolmentRefusedError"
    assert "expired" in answer.json()["detail"]
    assert "fleet token" in answer.json()["hint"]


def test_a_secret_that_nobody_made_is_refused(server: FleetServer) -> None:
    token = server.token().model_copy(update={"secret": "x" * 43})

    answer = ask_to_enrol(server, token, "guess")

    assert answer.status_code == 403
    assert "unknown" in answer.json()["detail"]


def test_a_name_can_be_taken_once(server: FleetServer, tmp_path: Path) -> None:
    FakeDevice.enrol(server, tmp_path, "taken")

    answer = ask_to_enrol(server, server.token(), "taken")

    assert answer.status_code == 409
    assert "fleet revoke taken" in answer.json()["hint"]


def test_a_device_that_lost_the_answer_may_ask_again_with_its_key(server: FleetServer) -> None:
    token, key = server.token(), ec.generate_private_key(ec.SECP256R1())

    first = ask_to_enrol(server, token, "again", key)
    second = ask_to_enrol(server, token, "again", key)
    other_key = ask_to_enrol(server, token, "again")

    assert (first.status_code, second.status_code, other_key.status_code) == (200, 200, 403)


def test_no_device_may_be_called_like_the_server(server: FleetServer) -> None:
    assert ask_to_enrol(server, server.token(), "fleet-server").status_code == 409


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "+", "#", "a" * 64])
def test_a_name_that_would_escape_its_topic_is_refused(server: FleetServer, name: str) -> None:
    body = {"token_secret": server.token().secret, "device": name, "csr_pem": "x"}

    with server.http() as http:
        answer = http.post("/v1/enrol", json=body)

    assert answer.status_code == 422
    assert "device" in answer.json()["detail"]


def test_a_director_document_is_for_its_device_alone(server: FleetServer, tmp_path: Path) -> None:
    one, other = FakeDevice.enrol(server, tmp_path, "mine"), FakeDevice.enrol(server, tmp_path, "yours")

    with server.http(one.answer.http_token) as http:
        mine = http.get(f"/v1/director/{one.name}.json")
        yours = http.get(f"/v1/director/{other.name}.json")
    with server.http() as http:
        nobodys = http.get(f"/v1/director/{one.name}.json")

    assert mine.json()["signed"]["device"] == one.name
    assert (yours.status_code, nobodys.status_code) == (403, 401)


class TestRenewal:
    @pytest.fixture
    def device(self, server: FleetServer, tmp_path: Path, request: pytest.FixtureRequest) -> FakeDevice:
        return FakeDevice.enrol(server, tmp_path, f"renew-{sha256_bytes(request.node.name.encode())[:8]}")

    def renew(self, server: FleetServer, device: FakeDevice, by: ec.EllipticCurvePrivateKey) -> httpx.Response:
        csr = request_certificate(ec.generate_private_key(ec.SECP256R1()), device.name)
        signature = base64.b64encode(by.sign(csr.encode(), ec.ECDSA(hashes.SHA256()))).decode()
        body = {"certificate_pem": device.answer.certificate_pem, "csr_pem": csr, "signature": signature}
        with server.http() as http:
            return http.post("/v1/renew", json=body)

    def test_the_holder_of_the_key_gets_a_new_certificate(self, server: FleetServer, device: FakeDevice) -> None:
        answer = self.renew(server, device, device.key)

        assert answer.status_code == 200
        assert answer.json()["certificate_pem"] != device.answer.certificate_pem

    def test_another_key_gets_none(self, server: FleetServer, device: FakeDevice) -> None:
        answer = self.renew(server, device, ec.generate_private_key(ec.SECP256R1()))

        assert answer.status_code == 403
        assert answer.json()["title"] == "CertificateRefusedError"

    def test_a_revoked_device_gets_none(self, server: FleetServer, device: FakeDevice) -> None:
        with server.client() as client:
            client.revoke(device.name)

        assert self.renew(server, device, device.key).status_code == 403
