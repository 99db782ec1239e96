"""The whole system in real processes: a fleet server with its Mosquitto, and agents that watch a small looped video.

Everything is started, asked and killed from outside, as people and power cuts do it. What only the disk knows (how far
an update is, what waits in a spool, which reports are stored) is read from the files of the programs.
"""

import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ommatid.errors import LinkError
from tests.support.bundles import Fault, make_bundle
from tests.support.fleet_server import FleetServer
from tests.support.loops import make_video
from tests.support.programs import until
from tests.support.running_agent import Agent, open_database

MODEL: Final = "detector"
FPS: Final = 20.0
MOST_S: Final = 90.0
STATES: Final = ("offered", "downloading", "verified", "trial", "loaded", "probation", "committed")
"""The way of a good update."""


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
    fleet: FleetServer
    agents: list[Agent] = field(default_factory=list)
    versions: int = 0

    @classmethod
    def begin(cls, folder: Path, *options: str) -> "System":
        """Found and start a fleet server; `options` are those of `fleet serve`."""
        system = cls(folder, FleetServer(folder, *options))
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
        self.fleet.close()

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
        with contextlib.closing(open_database(self.fleet.folder / "fleet.db")) as base:
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
            with self.fleet.client() as client:
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
