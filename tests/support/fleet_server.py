"""A real fleet server in processes of its own: HTTP, Mosquitto, database."""

import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from fleet_server.broker import brokers_of
from fleet_server.client import FleetClient
from fleet_server.founding import found
from fleet_server.profile import Profile
from fleet_server.settings import Settings
from ommatid.contract.enrolment import EnrolmentToken
from tests.support.broker import free_port
from tests.support.programs import BIN, call, until

TIMEOUT_S: Final = 20.0


class FleetServer:
    """A new fleet, and `fleet serve` on free ports of loopback; `kill` and `start` keep folder and ports."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder / "fleet"
        self.keys = folder / "keys"
        self.http_port, self.mqtt_port = free_port(), free_port()
        self._log = folder / "fleet.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        settings = Settings(http_port=self.http_port, mqtt_port=self.mqtt_port)
        found(self.folder, self.keys, settings, None, datetime.now(UTC))  # what `fleet init` does, without its start

    @property
    def url(self) -> str:
        return f"https://localhost:{self.http_port}"

    @property
    def broker_pid(self) -> int:
        """Return the number of its Mosquitto, 0 where none runs."""
        return next(iter(brokers_of(self.folder / "broker" / "mosquitto.conf")), 0)

    def call(self, *arguments: str | Path, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a `fleet` command against it."""
        return call("fleet", "--dir", self.folder, *arguments, expect=expect)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            line = [BIN / "fleet", "--dir", self.folder, "serve", *self._options]
            self._process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(self._healthy, "the fleet server", 60)

    def stop(self) -> int:
        """Stop it in order; return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; its Mosquitto has a process group of its own, and goes on."""
        self._end(signal.SIGKILL)

    def kill_broker(self) -> None:
        """End its Mosquitto as a power cut would."""
        for pid in brokers_of(self.folder / "broker" / "mosquitto.conf"):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop the server, and the Mosquitto that a killed one left behind."""
        self.stop()
        with suppress(ProcessLookupError):
            self.kill_broker()

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

    def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with self.http() as http:
                return http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        os.killpg(process.pid, number)
        try:
            return process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
