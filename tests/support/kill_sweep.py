"""Kill an agent by SIGKILL at every n-th moment of an update, start it again, and look what runs.

A program of its own, with one thread, so that it may fork: each agent is a child of it, and starting one is cheap.
It prints one JSON line: how many moments there were, and what went wrong at which.
"""

import json
import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.disks import Points
from tests.support.updating import Device, crashing, kill_self, slot

CHILD_TIMEOUT_S = 60
MOMENTS = 140


@dataclass
class Sweep:
    """One update, over and over: from `template`, a device that runs the bundle `old`, to `new`.

    failing: bundles that give errors on real frames. ends: the state, and what `current` and `previous` name then.
    """

    template: Path
    home: Path
    url: str
    document: bytes
    old: str
    new: str
    ends: tuple[str, str, str | None]
    failing: list[str]
    loop_dies: bool
    twice: bool
    client: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False))  # noqa: S501 (plain HTTP)
    failures: list[str] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 (a test's dice)

    def dies_at(self, point: int) -> bool:
        """Kill the agent at one moment and check the rest; return False when the update ended before that moment."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.template, self.home, symlinks=True)
        killed = self._update(Points(point, kill_self)) == -signal.SIGKILL
        try:
            current = slot(self.home / "state", "current")
            self._expect(current in {self.old, self.new}, f"{point}: current is {current} after the kill")
            device = Device(self.home, self.url, client=self.client)
            if self.loop_dies:
                device.loop.restart()
            running = device.loop.status().active
            self._expect(running in {self.old, self.new}, f"{point}: the loop runs {running} after the kill")
            if self.twice:
                self._update(Points(self.dice.randrange(MOMENTS), kill_self))
                if self.loop_dies:
                    device.loop.restart()
            status = self._update(Points())
            self._expect(status == 0, f"{point}: the second start ends with {status}")
            self._check_end(point)
        except (AssertionError, OSError) as error:
            self.failures.append(f"{point}: {error}")
        return killed

    def _check_end(self, point: int) -> None:
        state, current, previous = self.ends
        device = Device(self.home, self.url, client=self.client)
        device.engine.recover()
        self._expect(device.engine.record.state == state, f"{point}: ends as {device.engine.record.state}")
        self._expect((device.current, device.previous) == (current, previous), f"{point}: the slots are wrong")
        self._expect(device.loop.status().active == current, f"{point}: the loop runs the wrong bundle")
        self._expect(device.states[-1] == state, f"{point}: reported {device.states[-3:]}")
        repeated = sum(a == b for a, b in zip(device.states, device.states[1:], strict=False))
        self._expect(repeated <= 1 + self.twice, f"{point}: {repeated} reports were repeated")
        left = {path.name for path in (device.root / "store").iterdir()}
        left |= {path.name for path in (device.root / "downloads").iterdir()}
        self._expect(left == {current, previous} - {None}, f"{point}: left behind: {sorted(left)}")

    def _update(self, points: Points) -> int:
        """Run one agent until the update has ended, or it was killed; return its exit status or minus its signal."""
        child = os.fork()
        if child == 0:
            signal.alarm(CHILD_TIMEOUT_S)
            try:
                device = Device(self.home, self.url, client=self.client, disk=crashing(points), points=points)
                device.failing = dict.fromkeys(self.failing, "an output is not finite")
                device.run(self.document)
            except BaseException as error:  # noqa: BLE001 (whatever it is, the parent shall see it)
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _expect(self, so: bool, otherwise: str) -> None:  # noqa: FBT001 (an assertion)
        if not so:
            self.failures.append(otherwise)


def main() -> None:
    """Sweep the moments first, first + step, … of the update that standard input describes."""
    task = json.load(sys.stdin)
    task["ends"] = tuple(task["ends"])
    first, step = task.pop("first"), task.pop("step")
    sweep = Sweep(Path(task.pop("template")), Path(task.pop("home")), document=task.pop("document").encode(), **task)
    point = first
    while sweep.dies_at(point):
        point += step
    json.dump({"swept": len(range(first, point, step)), "last": point, "failures": sweep.failures}, sys.stdout)


if __name__ == "__main__":
    main()
