"""One thread a source that reads pictures and hands them on: at the source's own rate, or as fast as they are taken.

A source that is not there, does not decode or ends is a state that is reported. It is never a crash: what is down is
opened again, later and later.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from agent.loop.inbox import Inbox
from agent.loop.protocol import SourcePush, SourceState
from agent.loop.sources import Picture, Source, SourceSpec, open_source
from ommatid.backoff import Backoff
from ommatid.errors import SourceError
from ommatid.vision.frame import Frame

REOPEN: Final = Backoff(first_s=0.5, most_s=30.0)
LATEST_S: Final = 1.0
POLL_S: Final = 0.005

logger = logging.getLogger(__name__)


class Pace:
    """When the next picture is due: one period after the last one was, however long it took.

    After a pause of more than a second (the machine slept, the disk hung) the missed pictures are not made up for.
    """

    def __init__(self, fps: float, now_s: float) -> None:
        """Let the first picture be due now."""
        self._period_s = 1.0 / fps
        self._due_s = now_s

    def due_s(self, now_s: float) -> float:
        """Return when the next picture is due, and count on."""
        due_s = self._due_s if now_s - self._due_s <= LATEST_S else now_s
        self._due_s = due_s + self._period_s
        return due_s


class Reader:
    """The thread of one source."""

    def __init__(
        self,
        name: str,
        spec: SourceSpec,
        inbox: Inbox,
        report: Callable[[SourcePush], None],
        may_go_on: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare the thread; `report` is called on it at each change of state.

        With `may_go_on` the source is read as fast as its frames are taken, and while that says so: no frame is
        dropped, and no result is made that nobody would read.
        """
        self.name = name
        self.state = SourcePush(name, "starting")
        self._spec = spec
        self._inbox = inbox
        self._report = report
        self._may_go_on = may_go_on
        self._stopped = threading.Event()
        self._index = 0
        self._attempt = 0
        self._thread = threading.Thread(target=self._run, name=f"reader-{name}", daemon=True)

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; close the inbox too, or it may wait there for ever."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread; one that hangs in a driver is left behind."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with closing(open_source(self._spec)) as source:
                    self._deliver(source)
                if not self._stopped.is_set():
                    self._inbox.wait_until_done(self.name)
                    self._change("ended", "no more pictures")
            except (SourceError, OSError) as error:
                self._change("down", str(error))
                self._stopped.wait(REOPEN.ceiling_s(self._attempt))
                self._attempt += 1
            else:
                return

    def _deliver(self, source: Source) -> None:
        """Read ahead, so that decoding and going back to the start cost nothing when the picture is due."""
        pace = Pace(source.fps, time.monotonic())
        while not self._stopped.is_set():
            picture = source.read()
            if picture is None:
                if self._index == 0:
                    raise SourceError(f"{self._spec.path}: not one picture in it")
                return
            if self._may_go_on is None:
                due_s = pace.due_s(time.monotonic())
                if self._stopped.wait(max(0.0, due_s - time.monotonic())):
                    return
                self._inbox.put(self._frame(picture, due_s))
            else:
                self._wait_for(self._may_go_on)
                self._inbox.put_when_free(self._frame(picture, time.monotonic()))
            self._change("running")

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._stopped.wait(POLL_S):
            pass

    def _frame(self, picture: Picture, captured_s: float) -> Frame:
        wall_s = time.time() - (time.monotonic() - captured_s)
        frame = Frame(picture, self._index, self.name, round(captured_s * 1e9), wall_s)
        self._index += 1
        self._attempt = 0
        return frame

    def _change(self, state: SourceState, reason: str = "") -> None:
        if (state, reason) == (self.state.state, self.state.reason):
            return
        self.state = SourcePush(self.name, state, reason)
        logger.info("%s: %s%s", self.name, state, f", {reason}" if reason else "")
        self._report(self.state)
