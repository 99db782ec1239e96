"""Start loop and supervisor as two processes, and start each again alone when it dies.

This is `edge-agent run`; under systemd two units do the same. Standard library only: `run` replaces itself by
`python -m agent.processes`, so that what stays beside loop and supervisor is small.
"""

import contextlib
import dataclasses
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ommatid.backoff import Backoff

logger = logging.getLogger("agent.processes")

EX_CONFIG: Final = 78
"""Exit code of a child that would fail again: it has said why, and is not started again. From sysexits.h."""
HEALTHY_S: Final = 10.0
"""A child that ran so long is started again at once."""
GRACE_S: Final = 10.0
"""Children have so long to end by themselves."""

POLL_S: Final = 0.05
"""How often is looked whether a program that waits may start."""

RESTART: Final = Backoff(first_s=0.2, most_s=30.0)

LOOP_ENVIRONMENT: Final = {
    # glibc otherwise keeps the pages of a model that was unloaded.
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "ORT_DISABLE_TELEMETRY": "1",
    "OPENVINO_TELEMETRY_OPT_OUT": "1",
}


@dataclass(frozen=True, slots=True)
class Program:
    """One child: a module of ours, and what it reads on standard input.

    ends_all: when it ends well, the others are ended too.
    keeps_stdout: its standard output is ours; else it goes to standard error.
    starts_after: a file of another program, without which this one does not start.
    """

    name: str
    module: str
    config: str
    environment: Mapping[str, str] = field(default_factory=dict)
    ends_all: bool = False
    keeps_stdout: bool = False
    starts_after: Path | None = None


class _Child:
    """One program, running or waiting for its next start."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.start_at_s = 0.0
        self._started_s = 0.0
        self._failures = 0
        self._starts = 0

    def due(self, now_s: float) -> bool:
        """Tell whether it is time to start."""
        after = self.program.starts_after
        return self.process is None and self.start_at_s <= now_s and (after is None or after.exists())

    @property
    def failed_at_once(self) -> bool:
        """Tell whether the very first start ended before the program can have done anything."""
        return self._starts == 1 and self._failures == 1

    def start(self, now_s: float) -> None:
        program = self.program
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "agent.child", str(os.getpid()), program.module],
            stdin=subprocess.PIPE,
            stdout=None if program.keeps_stdout else sys.stderr.fileno(),
            env={**os.environ, **program.environment},
        )
        self.pidfd = os.pidfd_open(self.process.pid)
        self._started_s = now_s
        self._starts += 1
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
                stdin.write(program.config.encode())

    def ended(self, now_s: float) -> int:
        """Note the end, plan the next start, and return the exit code."""
        if self.process is None:
            raise RuntimeError("a program that did not run cannot end")
        code = self.process.wait()
        os.close(self.pidfd)
        self.process, self.pidfd = None, -1
        self._failures = 0 if now_s - self._started_s > HEALTHY_S else self._failures + 1
        self.start_at_s = now_s + (RESTART.ceiling_s(self._failures - 1) if self._failures else 0.0)
        return code


def encode_programs(programs: Sequence[Program]) -> str:
    """Return the document that `python -m agent.processes` reads on standard input."""
    return json.dumps([dataclasses.asdict(program) for program in programs], default=str)


def run_programs(programs: Sequence[Program]) -> int:
    """Run all programs until a signal, or until one ends for good; return the exit code."""
    children = [_Child(program) for program in programs]
    with _signals() as ends:
        try:
            return _keep_running(children, ends)
        finally:
            _stop(children)


def _keep_running(children: list[_Child], ends: socket.socket) -> int:
    with selectors.DefaultSelector() as selector:
        selector.register(ends, selectors.EVENT_READ)
        while True:
            now_s = time.monotonic()
            for child in children:
                if child.due(now_s):
                    child.start(now_s)
                    selector.register(child.pidfd, selectors.EVENT_READ, child)
            waits = [child.start_at_s - now_s for child in children if child.process is None]
            for key, _ in selector.select(max(POLL_S, min(waits)) if waits else None):
                if key.data is None:
                    return 0
                selector.unregister(key.fd)
                code = key.data.ended(time.monotonic())
                if (verdict := _verdict(key.data, code)) is not None:
                    return verdict


def _verdict(child: _Child, code: int) -> int | None:
    """Return the exit code for all when this end is the end of all."""
    program = child.program
    if code == EX_CONFIG or (code == 1 and child.failed_at_once):
        return 1
    if program.ends_all and code in (0, 1):
        return code
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    logger.warning("%s: ended %s; starting it again", program.name, how)
    return None


def _stop(children: list[_Child]) -> None:
    """End every child in order: first ask, then force."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in children:
        if child.pidfd >= 0:
            os.close(child.pidfd)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that becomes readable at SIGTERM or SIGINT."""
    ours, theirs = socket.socketpair()

    def told(_number: int, _frame: object) -> None:
        theirs.send(b"x")

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def main() -> int:
    """Run the programs that standard input names."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    return run_programs([_program(document) for document in json.load(sys.stdin)])


def _program(document: dict[str, Any]) -> Program:
    after = document.pop("starts_after", None)
    return Program(**document, starts_after=Path(after) if after else None)


if __name__ == "__main__":
    sys.exit(main())
