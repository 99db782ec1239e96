"""A real fleet server in processes of its own: HTTP, Mosquitto, database; steered by the public `fleet` command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.broker import free_port

BIN = Path(sys.executable).parent


class RunningFleet:
    """One fleet server in `folder`; `options` are those of `fleet serve`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder / "fleet"
        self._options = options
        self.keys = folder / "keys"
        self._log = folder / "fleet.log"
        self._process: subprocess.Popen[bytes] | None = None
        ports = ("--http-port", str(free_port()), "--mqtt-port", str(free_port()))
        call("fleet", "init", self.folder, "--keys", self.keys, *ports)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [BIN / "fleet", "--dir", self.folder, "serve", *self._options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self.call("devices", "--json", expect=None).returncode == 0, "the fleet server", 60)

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End its whole process group as a power cut would; its Mosquitto has a group of its own, and goes on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    @property
    def broker_pid(self) -> int:
        """Return the number of its Mosquitto."""
        return int((self.folder / "broker" / "broker.pid").read_text())

    def kill_broker(self) -> None:
        """End its Mosquitto as a power cut would."""
        os.kill(self.broker_pid, signal.SIGKILL)

    def call(self, *arguments: str | Path, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a `fleet` command against it."""
        return call("fleet", "--dir", self.folder, *arguments, expect=expect)

    def token(self, *options: str) -> str:
        """Return a fresh enrolment token."""
        return self.call("token", *options).stdout.strip()

    def rollout(self, name: str, version: str, expect: int | None = 0) -> dict[str, Any]:
        """Roll a pushed release out to all at once, wait for the end, and return how it went."""
        options = ("--stages", "100%", "--soak", "1", "--wait", "--json")
        return dict(json.loads(self.call("rollout", "start", name, version, *options, expect=expect).stdout))


def call(*command: str | Path, stdin: str | None = None, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
    """Run one of our programs, or any other by its full path, to its end."""
    line = [str(BIN / command[0]), *map(str, command[1:])]
    result = subprocess.run(line, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert expect is None or result.returncode == expect, f"{line}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def until(holds: Any, what: str, timeout_s: float = 30.0) -> None:  # noqa: ANN401 - any callable that tells
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.1)
