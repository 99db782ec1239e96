"""A real fleet server in a process of its own, and devices that speak to it as an agent does, but do as a test says."""

import os
import queue
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_server.client import FleetClient
from fleet_server.founding import found
from fleet_server.profile import Profile
from fleet_server.settings import Settings
from ommatid.contract.enrolment import EnrolAnswer, EnrolmentToken, EnrolRequest
from ommatid.contract.messages import Ack, Event, Hello, Report, State, decode, encode
from ommatid.contract.topics import Channel, DeviceTopics
from ommatid.mqtt import Backoff, Broker, Received, Session
from tests.support.broker import free_port

FLEET = Path(sys.executable).parent / "fleet"
TIMEOUT_S = 20.0


class FleetServer:
    """A new fleet, and `fleet serve` on free ports of loopback; `kill` and `start` keep folder and ports."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder / "server"
        self.keys = folder / "keys"
        self.http_port, self.mqtt_port = free_port(), free_port()
        self.log = folder / "server.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        settings = Settings(http_port=self.http_port, mqtt_port=self.mqtt_port)
        found(self.folder, self.keys, settings, None, datetime.now(UTC))  # what `fleet init` does, without its start

    @property
    def url(self) -> str:
        return f"https://localhost:{self.http_port}"

    @property
    def broker_pid(self) -> int:
        return int((self.folder / "broker" / "broker.pid").read_text())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `fleet` command on this server's folder."""
        line = [str(FLEET), "--dir", str(self.folder), *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self.log.open("ab") as log:
            line = [str(FLEET), "--dir", str(self.folder), "serve", *self._options]
            self._process = subprocess.Popen(line, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(self._healthy, self.log.read_text)

    def stop(self) -> int:
        """Stop it in order; return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; its Mosquitto lives on."""
        self._end(signal.SIGKILL)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the server, but not its broker, as a hanging disk would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def client(self) -> FleetClient:
        """Return the first operator's client."""
        return FleetClient(Profile.load(self.folder / "operator.toml"))

    def token(self, *, expires_s: float = 600, uses: int = 1, tags: tuple[str, ...] = ()) -> EnrolmentToken:
        """Return a new enrolment token."""
        with self.client() as client:
            return EnrolmentToken.decode(client.new_token(expires_s=expires_s, uses=uses, tags=tags))

    def http(self, token: str | None = None) -> httpx.Client:
        """Return an HTTP client that trusts this server."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        context = ssl.create_default_context(cafile=str(self.folder / "authority" / "ca.crt"))
        return httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def enrol(self, folder: Path, name: str, tags: tuple[str, ...] = ()) -> "FakeDevice":
        """Let a device join."""
        return FakeDevice(self, folder / name, name, self.token(tags=tags))

    def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            with self.http() as http:
                return http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Stop the server, and the Mosquitto that a killed one left behind."""
        self.stop()
        try:
            os.kill(self.broker_pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            return


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


def wait_for(condition: Callable[[], bool], explain: Callable[[], str] = str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait for something outside this process, asking again and again."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
