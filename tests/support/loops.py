"""A real loop process on a real small video, for tests."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2

from agent.loop.config import LoopConfig, SourceConfig
from agent.loop.protocol import FramePush, Push, SourcePush, SwappedPush
from agent.loop_client import LoopClient
from tests.support.bundles import picture

ROOT: Final = Path(__file__).parents[2]


def make_video(path: Path, frames: int = 20, fps: float = 20.0, width: int = 64, height: int = 48) -> Path:
    """Write an MJPG video whose frames show moving squares; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for number in range(frames):
        writer.write(picture(number, width, height))
    writer.release()
    return path


@contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder whose path is short enough for a Unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        yield Path(folder)


class RunningLoop:
    """A loop process with a client that keeps every push."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.pushes: list[Push] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.loop"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(config.encode().encode())
        self.process.stdin.close()
        self._arrived: queue.SimpleQueue[Push] = queue.SimpleQueue()
        self.client = LoopClient(config.socket, self._arrived.put)
        self.client.connect(timeout_s=30)

    def next(self) -> Push:
        """Return the next push."""
        push = self._arrived.get(timeout=60)
        self.pushes.append(push)
        return push

    def next_frame(self) -> FramePush:
        """Return the next frame's push."""
        while not isinstance(push := self.next(), FramePush):
            pass
        return push

    def next_swapped(self) -> SwappedPush:
        """Return the next swap's figures."""
        while not isinstance(push := self.next(), SwappedPush):
            pass
        return push

    def next_source(self, state: str) -> SourcePush:
        """Return the next change of a source to `state`."""
        while not (isinstance(push := self.next(), SourcePush) and push.state == state):
            pass
        return push

    @property
    def frames(self) -> list[FramePush]:
        """Return the pushes of frames so far."""
        return [push for push in self.pushes if isinstance(push, FramePush)]

    def stop(self) -> int:
        """End it by SIGTERM; return its exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stderr is not None
            self.stderr = self.process.stderr.read().decode()
            self.process.stderr.close()
        return status


@contextmanager
def running_loop(state: Path, source: str, **settings: object) -> Iterator[RunningLoop]:
    """Run a loop on one source named `camera` with the slots of `state`; `settings` are fields of LoopConfig."""
    with short_folder() as folder:
        config = LoopConfig((SourceConfig("camera", source),), folder / "loop.sock", state / "models")
        loop = RunningLoop(replace(config, **settings))  # type: ignore[arg-type]  # fields of LoopConfig
        try:
            yield loop
        finally:
            loop.stop()
