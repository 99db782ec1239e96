"""The parent of loop and supervisor, with small children of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.processes import EX_CONFIG, Program, encode_programs
from tests.support.programs import until

CHILD = """
import json, pathlib, sys, time
order = json.load(sys.stdin)
path = pathlib.Path(order["trace"])
with path.open("a") as file:
    file.write(order["name"] + "\\n")
if order["exit"] is not None:
    sys.exit(order["exit"])
time.sleep(60)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "test_child.py").write_text(CHILD)
    return tmp_path / "trace"


@pytest.fixture
def parent(tmp_path: Path, trace: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*programs: Program) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.processes"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"},
        )
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(encode_programs(programs).encode())
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def program(trace: Path, name: str, code: int | None = None, **fields: object) -> Program:
    config = json.dumps({"trace": str(trace), "name": name, "exit": code})
    return Program(name, "test_child", config, **fields)  # type: ignore[arg-type]


def starts(trace: Path) -> list[str]:
    return trace.read_text().split() if trace.exists() else []


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_child_that_dies_comes_back_alone_and_within_two_seconds(parent: Start, trace: Path) -> None:
    process = parent(program(trace, "a"), program(trace, "b"))
    until(lambda: sorted(starts(trace)) == ["a", "b"], "both")
    first, second = children(process)

    os.kill(first, signal.SIGKILL)

    until(lambda: len(starts(trace)) == 3, "the child", 5)
    assert second in children(process)
    assert first not in children(process)


def test_sigterm_ends_all_in_order(parent: Start, trace: Path) -> None:
    process = parent(program(trace, "a"), program(trace, "b"))
    until(lambda: len(starts(trace)) == 2, "both")
    left = children(process)

    process.terminate()

    assert process.wait(15) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_nobody_outlives_a_parent_that_is_killed(parent: Start, trace: Path) -> None:
    process = parent(program(trace, "a"))
    until(lambda: starts(trace) == ["a"], "the child")
    (left,) = children(process)

    process.kill()

    until(lambda: not Path(f"/proc/{left}").exists(), "the end of the child")


def test_a_mistake_that_would_be_repeated_ends_all(parent: Start, trace: Path) -> None:
    process = parent(program(trace, "a"), program(trace, "wrong", EX_CONFIG))

    assert process.wait(15) == 1
    assert starts(trace).count("wrong") == 1


def test_a_program_that_ends_all_gives_the_exit_code(parent: Start, trace: Path) -> None:
    process = parent(program(trace, "a"), program(trace, "done", 0, ends_all=True))

    assert process.wait(15) == 0


def test_a_program_waits_for_the_file_of_another(parent: Start, trace: Path, tmp_path: Path) -> None:
    parent(program(trace, "first"), program(trace, "second", starts_after=tmp_path / "ready"))
    until(lambda: starts(trace) == ["first"], "the first")

    (tmp_path / "ready").touch()

    until(lambda: starts(trace) == ["first", "second"], "the second")


def test_what_stays_beside_the_loop_is_small() -> None:
    heavy = ("pydantic", "click", "numpy", "tuf", "httpx", "paho", "cryptography")
    code = f"import agent.processes, agent.child, sys; print([n for n in {heavy!r} if n in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
