"""Our programs as a person runs them, and waiting for what they do in processes of their own."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent


def call(*command: str | Path, stdin: str | None = None, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
    """Run one of our programs, or any other by its full path, to its end."""
    line = [str(BIN / command[0]), *map(str, command[1:])]
    result = subprocess.run(line, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert expect is None or result.returncode == expect, f"{line}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something outside this process, asking again and again."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.02)
