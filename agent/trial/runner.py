"""Start a trial and bring home its verdict, whatever happens to it. The supervisor's side; standard library only."""

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import agent
from agent.trial.errors import TrialCrashError, TrialOutputError, TrialTimeoutError
from agent.trial.judge import MAX_RATIO
from agent.trial.verdict import TrialVerdict, decode_verdict, refused
from ommatid.errors import StorageError

READ_BYTES: Final = 64 * 1024
GRACE_S: Final = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """What a trial may use: memory of its whole process (some 100 MB of it the runtime's own), threads, slowness."""

    memory_bytes: int | None = None
    threads: int = 1
    max_ratio: float = MAX_RATIO


def run_trial(candidate: Path, current: Path | None, limits: TrialLimits, timeout_s: float = 120.0) -> TrialVerdict:
    """Try the model in the folder `candidate`, measured beside the one in `current`.

    A crash, a hang, a memory limit and nonsense are refusals with an error class of their own.

    Raises:
        StorageError: No process can be started; the model was not tried.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module; paths are arguments, no shell
                _command(candidate, current, limits, timeout_s),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=_environment(),
            )
        except OSError as error:
            raise StorageError(f"no trial can be started: {error}", hint="is the machine out of memory?") from error
        status = _wait(process, timeout_s)
        verdict = _verdict(status, _tail(out), timeout_s)
        if not verdict.passed:
            logger.warning("trial: %s: %s; %s", verdict.error, verdict.reason, _tail(err)[-2000:].strip() or "no log")
        return verdict


def _command(candidate: Path, current: Path | None, limits: TrialLimits, timeout_s: float) -> list[str]:
    command = [sys.executable, "-m", "agent.trial", "--candidate", str(candidate)]
    command += ["--threads", str(limits.threads), "--max-ratio", str(limits.max_ratio)]
    command += ["--seconds", str(math.ceil(timeout_s) + GRACE_S)]
    if current is not None:
        command += ["--current", str(current)]
    if limits.memory_bytes is not None:
        command += ["--memory-mb", str(math.ceil(limits.memory_bytes / (1024 * 1024)))]
    return command


def _environment() -> dict[str, str]:
    """Return the environment in which the trial finds the same packages as we do."""
    root = str(Path(agent.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Return the exit status, or None when the process had to be ended."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def _verdict(status: int | None, said: str, timeout_s: float) -> TrialVerdict:
    if status is None:
        return refused(TrialTimeoutError(f"the trial did not end in {timeout_s:g} s"))
    if status < 0:
        return refused(TrialCrashError(f"the trial died of {_signal_name(-status)}: the model crashes the runtime"))
    try:
        verdict = decode_verdict(said.strip().rpartition("\n")[2])
    except TrialOutputError as error:
        return refused(error)
    if verdict.passed != (status == 0):
        return refused(TrialOutputError(f"the trial ended with {status}, against its own verdict"))
    return verdict


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - READ_BYTES))
    return file.read().decode(errors="replace")
