"""The telemetry windows of all sources; a closed one becomes a report in the spool."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from agent.clock import Clock
from agent.loop.protocol import FramePush
from agent.spool import Spool
from agent.status import model_ref
from agent.telemetry.window import ClosedWindow, WindowBuilder
from agent.update.store import Store
from ommatid.contract.messages import Window
from ommatid.errors import StorageError

logger = logging.getLogger(__name__)


class Windows:
    """One open window a source. Frames come on one thread, ticks on another."""

    def __init__(self, clock: Clock, window_s: float, store: Store, spool: Spool | None) -> None:
        self._clock = clock
        self._window_s = window_s
        self._store = store
        self._spool = spool
        self._open: dict[str, WindowBuilder] = {}
        self._lock = threading.Lock()

    def add(self, push: FramePush) -> None:
        """Count a frame into the window of its source; it closes the one before where the model changed."""
        with self._lock:
            window = self._open.get(push.source)
            if window is None:
                window = WindowBuilder(push.source, self._clock, self._window_s)
                self._open[push.source] = window
            closed = window.add(push)
        if closed is not None:
            self._keep(closed)

    def tick(self) -> None:
        """Close the windows whose time is over."""
        self._end(WindowBuilder.tick)

    def close(self) -> None:
        """Close them all."""
        self._end(WindowBuilder.close)

    def _end(self, close: Callable[[WindowBuilder], ClosedWindow | None]) -> None:
        with self._lock:
            closed = [made for window in self._open.values() if (made := close(window)) is not None]
        for window in closed:
            self._keep(window)

    def _keep(self, window: ClosedWindow) -> None:
        if self._spool is None:
            return
        model = model_ref(self._store, window.digest)
        fields: dict[str, Any] = {**window.fields, "model": model.model_dump() if model else None}
        try:
            self._spool.add(Window, **fields)
        except StorageError as error:
            logger.warning("a telemetry window is lost: %s", error)
