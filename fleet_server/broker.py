"""Run a Mosquitto of our own: its configuration, its certificates' rules, and its life.

Each device proves itself by its certificate, is called what the certificate says, and may touch its own topics only.
The system's Mosquitto, if there is one, is never touched: ours has its own port, folder and configuration.
"""

import contextlib
import errno
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from fleet_server.authority import SERVER_IDENTITY
from fleet_server.errors import PortInUseError
from ommatid.contract.messages import MAX_MESSAGE_BYTES
from ommatid.contract.topics import PREFIX, Channel
from ommatid.errors import LinkError

logger = logging.getLogger(__name__)

UPSTREAM: Final = (Channel.STATE, Channel.REPORTED, Channel.WINDOW, Channel.EVENT, Channel.REPLY)
DOWNSTREAM: Final = (Channel.DESIRED, Channel.CMD, Channel.ACK)
START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
STEADY_S: Final = 60.0
"""A broker that lived so long did not die of its configuration: the next restart is quick again."""
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""What waits for one client. Beyond it the broker drops, and the devices, who got no ack from us, send again."""
MAX_LOG_BYTES: Final = 10 * 1024 * 1024


class Broker:
    """One Mosquitto process, started again whenever it dies."""

    def __init__(self, folder: Path, authority: Path, host: str, port: int) -> None:
        self._folder = folder.absolute()
        self._authority = authority
        self._host = host
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Return the process id of the Mosquitto that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, revocation_list: bytes) -> None:
        """Start Mosquitto and wait until it listens.

        Raises:
            LinkError: It is not installed, its port is in use, or it does not start.
        """
        program = _program()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stop_orphans()
        check_port(self._host, self._port, "the MQTT broker", "mqtt_port")
        self._write_configuration(revocation_list)
        self._spawn(program)
        self._wait_listening()
        self._thread = threading.Thread(target=self._supervise, args=(program,), name="broker", daemon=True)
        self._thread.start()
        logger.info("broker: Mosquitto listens on %s:%d", self._host, self._port)

    def stop(self) -> None:
        """Stop Mosquitto; it writes down what it retains."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def reload(self, revocation_list: bytes) -> None:
        """Let Mosquitto read a new revocation list; a session that is open stays open."""
        (self._folder / "revoked.crl").write_bytes(revocation_list)
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGHUP)

    @property
    def _configuration(self) -> Path:
        return self._folder / "mosquitto.conf"

    @property
    def _log(self) -> Path:
        return self._folder / "mosquitto.log"

    def _write_configuration(self, revocation_list: bytes) -> None:
        (self._folder / "revoked.crl").write_bytes(revocation_list)
        _write_private(self._folder / "acl", access_list())
        configuration = mosquitto_configuration(self._folder, self._authority, self._host, self._port, _user())
        _write_private(self._configuration, configuration)

    def _spawn(self, program: str) -> None:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own configuration
                [program, "-c", str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop it in order
            )

    def _supervise(self, program: str) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            process, started = self._process, time.monotonic()
            if process is None:
                return
            process.wait()
            if self._stopping.is_set():
                return
            pause_s = FIRST_PAUSE_S if time.monotonic() - started > STEADY_S else min(pause_s * 2, LONGEST_PAUSE_S)
            logger.error("broker: Mosquitto ended with %d; again in %.1f s", process.returncode, pause_s)
            if self._stopping.wait(pause_s):
                return
            self.restarts += 1
            self._spawn(program)

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection((host, self._port), 1):
                    return
            except OSError:
                time.sleep(0.02)
        tail = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        self.stop()
        raise LinkError(
            f"Mosquitto does not start on {self._host}:{self._port}: {' '.join(tail)}", hint=f"see {self._log}"
        )

    def _stop_orphans(self) -> None:
        """End the Mosquitto of a server that was killed."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for pid in brokers_of(self._configuration):
            logger.warning("broker: stopping Mosquitto %d, which a killed server left behind", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while brokers_of(self._configuration) and time.monotonic() < deadline:
            time.sleep(0.02)


def brokers_of(configuration: Path) -> list[int]:
    """Return the processes that run with this configuration, by their command lines.

    A file with their number would be missing just when it is needed: after a kill between the start and the writing.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (process / "cmdline").read_bytes().split(b"\0")
            if program.endswith(b"mosquitto") and bytes(configuration) in arguments:
                found.append(int(process.name))
    return found


def access_list() -> str:
    """Return Mosquitto's access rules: the server everything, a device its own channels."""
    lines = [f"user {SERVER_IDENTITY}", f"topic readwrite {PREFIX}/#", ""]
    lines += [f"pattern write {PREFIX}/+/+/%u/{channel}" for channel in UPSTREAM]
    lines += [f"pattern read {PREFIX}/+/+/%u/{channel}" for channel in DOWNSTREAM]
    return "\n".join(lines) + "\n"


def mosquitto_configuration(folder: Path, authority: Path, host: str, port: int, user: str) -> str:
    """Return mosquitto.conf."""
    return f"""\
# Written by `fleet serve` whenever it starts.
user {user}
listener {port} {host}
protocol mqtt
set_tcp_nodelay true

# The certificate is the identity; a client that chooses its own id could take over another's session.
cafile {authority}/ca.crt
certfile {authority}/broker.crt
keyfile {authority}/broker.key
crlfile {folder}/revoked.crl
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# The database is the truth; what is kept here only saves a round trip.
persistence true
persistence_location {folder}/
autosave_interval 60
persistent_client_expiration 1d

max_packet_size {MAX_MESSAGE_BYTES + 1024}
max_inflight_messages 1000
max_inflight_bytes {MAX_QUEUED_BYTES // 4}
max_queued_messages 100000
max_queued_bytes {MAX_QUEUED_BYTES}
max_keepalive 600
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""


def check_port(host: str, port: int, what: str, setting: str) -> None:
    """Check that we can listen there.

    Raises:
        PortInUseError: Another program does.
        LinkError: This machine has no such address, or the port needs root.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"{host}:{port}: the port for {what} is in use by another program",
                hint=f"stop that program, or choose another port: {setting} in fleet.toml",
            ) from error
        raise LinkError(
            f"{host}:{port}: {what} cannot listen here: {error.strerror or error}", hint="check host and port"
        ) from error


def _program() -> str:
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise LinkError("Mosquitto is not installed", hint="sudo apt install mosquitto (its own service is not needed)")
    return found


def _user() -> str:
    """Return our own user: as root, Mosquitto would become a user who cannot read our keys."""
    return pwd.getpwuid(os.getuid()).pw_name


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
