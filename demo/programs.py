"""Run the three programs the way a person would: by their public commands, in processes of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


class DemoError(Exception):
    """A step of the demo did not go as it must."""


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:  # noqa: ANN401 - any JSON document
        """Return the document that the command printed."""
        return json.loads(self.stdout)

    def error(self) -> str:
        """Return the text of the `error:` line."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return lines[-1].removeprefix("error: ") if lines else self.stderr.strip()[-500:]


def call(*command: str | Path, stdin: str | None = None, expect: int | None = 0) -> Outcome:
    """Run one command to its end.

    Raises:
        DemoError: It ended with another code than expected.
    """
    line = [str(BIN / str(command[0])), *map(str, command[1:])]
    result = subprocess.run(line, input=stdin, capture_output=True, text=True, check=False)
    if expect is not None and result.returncode != expect:
        raise DemoError(
            f"{' '.join(line)}\nexit {result.returncode}, expected {expect}\n{result.stdout}{result.stderr}"
        )
    return Outcome(result.returncode, result.stdout, result.stderr)


@dataclass
class Service:
    """A program that goes on running, with its output in a log file."""

    command: Sequence[str | Path]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a process group of its own."""
        line = [str(BIN / str(self.command[0])), *map(str, self.command[1:])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill the whole group at once, as a power cut would; returns when the last of it is gone."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0)
                time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end; kill the group after 20 s."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def check(self) -> None:
        """Raise DemoError with the end of the log when it is gone."""
        if self.process is None or self.process.poll() is not None:
            raise DemoError(f"{self.command[0]} ended; the end of {self.log}:\n{self.log.read_text()[-3000:]}")


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float, services: Sequence[Service] = ()) -> Any:  # noqa: ANN401
    """Return the first true value of `condition`, asked ten times a second.

    Raises:
        DemoError: It did not come in time, or a service died meanwhile.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        for service in services:
            service.check()
        time.sleep(0.1)
    raise DemoError(f"waited {timeout_s:.0f} s in vain for {what}")


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
