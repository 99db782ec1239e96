"""`edge-agent` in real processes: started, asked and killed from outside, as people and power cuts do it."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.fleet_server import FleetServer
from tests.support.programs import BIN, call, until

FAST: Final = {
    "HTTP_PORT": "0",
    "STATUS_INTERVAL_S": "1",
    "WINDOW_S": "2",
    "PROBATION_S": "2",
    "PROBATION_FRAMES": "20",
}


class Agent:
    """One `edge-agent run`, in a process group of its own."""

    def __init__(self, name: str, state_dir: Path, source: str) -> None:
        self.name = name
        self.state_dir = state_dir
        self.results = state_dir / "results.ndjson"
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None

    def enroll(self, fleet: FleetServer, wrapper: Sequence[str | Path] = ()) -> None:
        """Join the fleet with a fresh token."""
        command = (*wrapper, BIN / "edge-agent", "enroll", *self._options)
        call(*command, "--token-file", "-", "--device", self.name, stdin=fleet.token().encode())

    def start(self, wrapper: Sequence[str | Path] = (), **settings: str) -> None:
        """Start it, under another program if one is given, and wait until its supervisor answers."""
        command = [*wrapper, BIN / "edge-agent", "run", *self._options, "--source", self._source]
        chosen = {f"EDGE_AGENT_{name}": value for name, value in {**FAST, **settings}.items()}
        with (self.state_dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*map(str, command), "--results", str(self.results)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | chosen,
                start_new_session=True,
            )
        until(self.answers, f"{self.name}'s supervisor")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, or end the parent of its processes alone; return its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(30)

    def kill(self) -> None:
        """End the whole group at once, as a power cut would; return when the last of it is gone."""
        assert self._process is not None
        process, self._process = self._process, None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: not _group_lives(process.pid), f"the end of {self.name}")

    def status(self) -> dict[str, Any]:
        """Return what it says of itself, asked as `edge-agent status` asks it, but without that program's start."""
        return dict(self.fetch("/status").json())

    def fetch(self, page: str) -> httpx.Response:
        """Return a page of its own HTTP server."""
        port = json.loads((self.state_dir / "run" / "supervisor.json").read_text())["port"]
        return httpx.get(f"http://127.0.0.1:{port}{page}", timeout=10, trust_env=False)

    def answers(self) -> bool:
        """Tell whether its supervisor answers; fail at once if the agent has ended."""
        assert self._process is None or self._process.poll() is None, (self.state_dir / "log").read_text()[-3000:]
        try:
            return self.fetch("/healthz").status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def ready(self) -> bool:
        """Tell whether frames are inferred."""
        try:
            return self.fetch("/readyz").status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def runs(self) -> str | None:
        """Return the version that sees the frames, as the supervisor knows it."""
        try:
            model = self.status()["model"]
        except (OSError, ValueError, httpx.HTTPError):
            return None
        return str(model["version"]) if model is not None else None

    def update(self) -> dict[str, Any]:
        """Return the engine's record, from the disk."""
        try:
            return dict(json.loads((self.state_dir / "update.json").read_bytes()))
        except FileNotFoundError:
            return {"state": "idle", "release": None}

    def children(self) -> dict[str, int]:
        """Return module -> process id of loop and supervisor."""
        assert self._process is not None
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        lines = {}
        for pid in found:
            with contextlib.suppress(OSError):  # it has just died
                lines[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return {line[-2]: pid for pid, line in lines.items() if len(line) > 1}

    def seen(self) -> list[dict[str, Any]]:
        """Return its results so far, one a frame; the line that is being written is left out."""
        lines = self.results.read_bytes().split(b"\n")[:-1] if self.results.exists() else []
        return [json.loads(line) for line in lines if line]

    def spooled(self) -> tuple[int, dict[str, int]]:
        """Return how many reports wait, and the last sequence number that was given, by boot."""
        with contextlib.closing(open_database(self.state_dir / "spool.db")) as base:
            waiting = int(base.execute("SELECT count(*) FROM report").fetchone()[0])
            return waiting, dict(base.execute("SELECT boot, last_seq FROM boot").fetchall())

    @property
    def _options(self) -> tuple[str | Path, ...]:
        return "--state-dir", self.state_dir


def open_database(path: Path) -> sqlite3.Connection:
    """Open a program's database without touching it."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
