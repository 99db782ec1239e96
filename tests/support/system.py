"""The whole system in real processes: a fleet server with its Mosquitto, and agents that watch a small looped video.

Everything is started, asked and killed from outside, as people and power cuts do it. What only the disk knows (how far
an update is, what waits in a spool, which reports are stored) is read from the files of the programs.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from fleet_server.client import FleetClient
from fleet_server.profile import Profile
from ommatid.errors import LinkError
from tests.support.bundles import Fault, make_bundle
from tests.support.loops import make_video
from tests.support.running_fleet import BIN, RunningFleet, call, until

MODEL: Final = "detector"
FPS: Final = 20.0
FAST: Final = {
    "HTTP_PORT": "0",
    "STATUS_INTERVAL_S": "1",
    "WINDOW_S": "2",
    "PROBATION_S": "2",
    "PROBATION_FRAMES": "20",
}
MOST_S: Final = 90.0
STATES: Final = ("offered", "downloading", "verified", "trial", "loaded", "probation", "committed")
"""The way of a good update."""


class Agent:
    """One `edge-agent run`, in a process group of its own."""

    def __init__(self, name: str, state_dir: Path, source: str) -> None:
        self.name = name
        self.state_dir = state_dir
        self.results = state_dir / "results.ndjson"
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None

    def enroll(self, fleet: RunningFleet, wrapper: Sequence[str | Path] = ()) -> None:
        """Join the fleet with a fresh token."""
        program = (*wrapper, BIN / "edge-agent")
        call(*program, "enroll", "--token-file", "-", *self._options, "--device", self.name, stdin=fleet.token())

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

    def stop(self) -> int:
        """Ask it to end; return its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
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
        with contextlib.closing(_open(self.state_dir / "spool.db")) as base:
            waiting = int(base.execute("SELECT count(*) FROM report").fetchone()[0])
            return waiting, dict(base.execute("SELECT boot, last_seq FROM boot").fetchall())

    @property
    def _options(self) -> tuple[str | Path, ...]:
        return "--state-dir", self.state_dir


@dataclass(frozen=True, slots=True)
class Stored:
    """The reports of one device in the server's database, by boot and number."""

    boots: dict[str, dict[int, dict[str, Any]]]

    @property
    def count(self) -> int:
        """Return how many there are."""
        return sum(len(reports) for reports in self.boots.values())

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the reports of one kind, in the order in which each boot sent them."""
        ordered = (reports[seq] for reports in self.boots.values() for seq in sorted(reports))
        return [body for body in ordered if body["kind"] == kind]

    def gaps(self) -> dict[str, list[int]]:
        """Return the numbers that are missing below the highest one, by boot."""
        missing = {boot: sorted(set(range(1, max(reports) + 1)) - set(reports)) for boot, reports in self.boots.items()}
        return {boot: numbers for boot, numbers in missing.items() if numbers}

    def doubled(self) -> list[tuple[str, ...]]:
        """Return what was said twice: a telemetry window that began at the same moment, a change of state that is the
        same but for its number.
        """
        said: Counter[tuple[str, ...]] = Counter()
        for boot, reports in self.boots.items():
            for body in reports.values():
                if body["kind"] == "window":
                    said[boot, "window", body["source"], body["started_at"]] += 1
                elif body["kind"] == "update":
                    said[boot, str(body["desired_rev"]), body["state"], str(body["attempt"]), body["sent_at"]] += 1
        return [what for what, times in said.items() if times > 1]


@dataclass
class System:
    """One fleet server and its agents."""

    folder: Path
    fleet: RunningFleet
    agents: list[Agent] = field(default_factory=list)
    versions: int = 0

    @classmethod
    def begin(cls, folder: Path, *options: str) -> "System":
        """Found and start a fleet server; `options` are those of `fleet serve`."""
        system = cls(folder, RunningFleet(folder, *options))
        system.fleet.start()
        return system

    def add_agent(self, name: str, wrapper: Sequence[str | Path] = ()) -> Agent:
        """Enrol an agent and start it, both under another program if one is given.

        Its video shows all pictures that there are.
        """
        video = self.folder / "video.avi"
        if not video.exists():
            make_video(video, frames=40, fps=FPS)
        state_dir = self.folder / name  # short: a Unix socket lies in it
        agent = Agent(name, state_dir, f"{video}#loop")
        agent.enroll(self.fleet, wrapper)
        agent.start(wrapper)
        self.agents.append(agent)
        until(lambda: name in self.online(), f"{name} online", MOST_S)
        return agent

    def end(self) -> None:
        """End everything, a Mosquitto without its server included."""
        for agent in self.agents:
            agent.stop()
        self.fleet.stop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.fleet.kill_broker()

    def push(self, fault: Fault | None = None) -> str:
        """Build, sign and push the next version; return it."""
        self.versions += 1
        version = str(self.versions)
        bundle = make_bundle(self.folder / "bundles", MODEL, version, fault=fault)
        self.fleet.call("push", bundle, "--keys", self.fleet.keys)
        return version

    def start_rollout(self, version: str, *, stages: str = "100%", max_failures: str = "1") -> str:
        """Start to roll a version out, once all agents are online; return the rollout's id."""
        until(lambda: len(self.online()) == len(self.agents), "all agents online", MOST_S)
        options = ("--stages", stages, "--soak", "0s", "--max-failures", max_failures, "--json")
        return str(json.loads(self.fleet.call("rollout", "start", MODEL, version, *options).stdout)["id"])

    def rollout(self, rollout: str) -> dict[str, Any]:
        """Return a rollout as it is now, as `fleet rollout status` prints it; nothing while no server answers."""
        return dict(self._ask(f"/v1/rollouts/{rollout}") or {"state": "unknown"})

    def online(self) -> list[str]:
        """Return the devices that the server sees online."""
        return [device["id"] for device in self._ask("/v1/devices") or [] if device["online"]]

    def finish(self, rollout: str, *, state: str = "finished") -> dict[str, Any]:
        """Wait until a rollout is over, and return how it went."""
        over = ("finished", "aborted", "paused")
        until(lambda: self.rollout(rollout)["state"] in over, f"the end of rollout {rollout}", MOST_S)
        view = self.rollout(rollout)
        assert view["state"] == state, view
        return view

    def finish_everywhere(self, rollout: str) -> None:
        """Wait until a rollout has finished, and each agent has committed.

        Devices that were away for a moment do not hold it up: they get their offer when they are back.
        """
        self.finish(rollout)
        wanted = {agent.name: "committed" for agent in self.agents}
        until(
            lambda: {device["id"]: device["state"] for device in self.rollout(rollout).get("devices", ())} == wanted,
            f"all commits of rollout {rollout}",
            MOST_S,
        )

    def install(self) -> str:
        """Bring the next version to all agents, and return it."""
        version = self.push()
        self.finish_everywhere(self.start_rollout(version))
        return version

    def wait_running(self, version: str) -> None:
        """Wait until every agent runs a version."""
        for agent in self.agents:
            until(lambda agent=agent: agent.runs() == version, f"{agent.name} on version {version}", MOST_S)

    def stored(self, agent: Agent) -> Stored:
        """Return what the server has stored of one device."""
        boots: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        with contextlib.closing(_open(self.fleet.folder / "fleet.db")) as base:
            query = "SELECT boot, seq, kind, body FROM report WHERE device_id = ?"
            rows = base.execute(query, (agent.name,)).fetchall()
        for boot, seq, kind, body in rows:
            assert seq not in boots[boot], f"{agent.name} {boot} {seq} is there twice"
            boots[boot][seq] = {**json.loads(body), "kind": kind}
        return Stored(dict(boots))

    def confirmed(self, agent: Agent) -> Stored:
        """Wait for a moment at which nothing waits in an agent's spool; return what the server has of it.

        What the spool gave numbers to is then compared with what is stored: nothing lost, nothing doubled.
        """
        deadline = time.monotonic() + MOST_S
        while (spooled := agent.spooled())[0]:
            assert time.monotonic() < deadline, f"{agent.name}: {spooled} reports wait"
            time.sleep(0.02)
        stored = self.stored(agent)
        for boot, last in spooled[1].items():
            assert max(stored.boots.get(boot, {0: {}})) >= last, f"{agent.name} gave {last} numbers in boot {boot}"
        assert stored.gaps() == {}
        assert stored.doubled() == []
        return stored

    def uncounted(self, agent: Agent) -> int:
        """End an agent in order, let its next start send what was left, and return for how many frames in its results
        the server has no telemetry.

        Whatever happens to server and broker, that number stays; a kill of the agent itself costs its open window.
        """
        agent.stop()
        frames = len(agent.seen())
        agent.start(WINDOW_S="900")
        counted = sum(int(window["frames"]) for window in self.confirmed(agent).of_kind("window"))
        agent.stop()
        agent.start()
        return frames - counted

    def _ask(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        try:
            with FleetClient(Profile.load(self.fleet.folder / "operator.toml")) as client:
                return client.get(path)
        except LinkError:
            return None


def wait_for_state(agents: Sequence[Agent], version: str, state: str) -> Agent:
    """Wait until the update of one of the agents to `version` is in `state`; return that agent.

    Some states last for milliseconds: one that was just missed, for the next one on the way, counts too.
    """
    enough = STATES[STATES.index(state) :]
    deadline = time.monotonic() + MOST_S
    while time.monotonic() < deadline:
        for agent in agents:
            update = agent.update()
            if update["state"] in enough and update["release"]["version"] == version:
                return agent
        time.sleep(0.002)
    raise AssertionError(f"no update to {version} was seen in state {state}")


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
