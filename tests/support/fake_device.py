"""A device that speaks to a fleet server as an agent does, but does as a test says."""

import os
import queue
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ommatid.backoff import Backoff
from ommatid.contract.enrolment import EnrolAnswer, EnrolmentToken, EnrolRequest
from ommatid.contract.messages import Ack, Event, Hello, Report, State, decode, encode
from ommatid.contract.topics import Channel, DeviceTopics
from ommatid.mqtt import Broker, Received, Session
from tests.support.fleet_server import TIMEOUT_S, FleetServer


class FakeDevice:
    """Identity and MQTT session of one device; what the server says to it waits in `desired` and `acks`."""

    def __init__(self, server: FleetServer, folder: Path, name: str, token: EnrolmentToken) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.desired: queue.Queue[bytes] = queue.Queue()
        self.acks: queue.Queue[Ack] = queue.Queue()
        self.boot = os.urandom(16).hex()
        self.answer = self._enrol(server, token)
        self.topics = DeviceTopics(self.answer.tenant, name)
        self._write(self.answer.certificate_pem)
        self.session = self._session(server)

    @classmethod
    def enrol(cls, server: FleetServer, folder: Path, name: str, tags: tuple[str, ...] = ()) -> Self:
        """Let a device join, with a token of its own."""
        return cls(server, folder / name, name, server.token(tags=tags))

    @property
    def broker(self) -> Broker:
        return self.session.broker

    def connect(self) -> None:
        """Connect, and wait until every subscription is in place."""
        self.session.start()
        assert self.session.wait_connected(TIMEOUT_S)

    def close(self) -> None:
        self.session.stop()

    def hello(self, seq: int, agent: str = "0.1.0") -> Hello:
        return Hello(boot=self.boot, seq=seq, uptime_s=1.0, sent_at=now_text(), agent=agent, arch="x86_64")

    def event(self, seq: int, text: str = "a picture") -> Event:
        return Event(boot=self.boot, seq=seq, uptime_s=1.0, sent_at=now_text(), name="test", severity="info", text=text)

    def send(self, report: Report) -> None:
        """Publish a report where it belongs."""
        channel = Channel.EVENT if isinstance(report, Event) else Channel.REPORTED
        assert self.session.publish(self.topics.of(channel), encode(report))

    def say(self, state: State) -> None:
        """Publish what the device does now."""
        assert self.session.publish(self.topics.of(Channel.STATE), encode(state), retain=True)

    def wait_ack(self, seq: int) -> None:
        """Wait until everything up to and with `seq` is acknowledged."""
        deadline = time.monotonic() + TIMEOUT_S
        while (ack := self.acks.get(timeout=max(0.01, deadline - time.monotonic()))).seq < seq:
            assert ack.boot == self.boot

    def csr(self) -> str:
        return request_certificate(self.key, self.name)

    def _enrol(self, server: FleetServer, token: EnrolmentToken) -> EnrolAnswer:
        request = EnrolRequest(token_secret=token.secret, device=self.name, csr_pem=self.csr())
        with server.http() as http:
            answer = http.post("/v1/enrol", json=request.model_dump(mode="json"))
        assert answer.status_code == 200, answer.text
        return EnrolAnswer.model_validate_json(answer.content)

    def _write(self, certificate_pem: str) -> None:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "device.key").write_bytes(self.key.private_bytes(*form))
        (self.folder / "device.crt").write_text(certificate_pem)
        (self.folder / "ca.crt").write_text(self.answer.ca_pem)

    def _session(self, server: FleetServer) -> Session:
        files = (self.folder / "ca.crt", self.folder / "device.crt", self.folder / "device.key")
        session = Session(Broker("localhost", server.mqtt_port, *files), self.name, backoff=Backoff(0.05, 0.2))

        def take_desired(received: Received[bytes]) -> None:
            self.desired.put(received.value)

        def take_ack(received: Received[Ack]) -> None:
            self.acks.put(received.value)

        session.subscribe(self.topics.of(Channel.DESIRED), bytes, take_desired)
        session.subscribe(self.topics.of(Channel.ACK), decode_ack, take_ack)
        return session


def decode_ack(payload: bytes) -> Ack:
    return decode(payload, Ack)


def request_certificate(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """Return a certificate request, PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
