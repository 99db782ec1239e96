"""Load and free models beside the running loop, on one thread of the lowest priority.

At normal priority a large model that loads slows the loop down. At nice 19, from a path (bytes hold the interpreter
lock) and with one runtime thread (a pool made here would stay at nice 19 for ever), the loop does not notice:
`benchmarks/swap.py` measures it.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.loop.slots import LoadedModel, LoadingError, Slots, read_reference
from ommatid.errors import OmmatidError
from ommatid.runtime.model import Model

LOWEST_PRIORITY: Final = 19
STOP_S: Final = 2.0

logger = logging.getLogger(__name__)


def load_model(folder: Path, digest: str, threads: int) -> LoadedModel:
    """Load and warm up the model of an unpacked bundle.

    Raises:
        OmmatidError: It does not load, or does not run.
    """
    model = Model.load(folder, threads)
    try:
        model.warm_up()
        return LoadedModel(digest, model, read_reference(model.spec.reference))
    except BaseException:
        model.close()
        raise


class Worker:
    """The thread, and what it is asked to do, one thing after the other."""

    def __init__(self, slots: Slots, threads: int) -> None:
        """Prepare the thread. With more than one runtime thread it keeps normal priority, as they would inherit it."""
        self._slots = slots
        self._threads = threads
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loading = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    @property
    def loading(self) -> bool:
        """Tell whether a model is being loaded."""
        return self._loading.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a model that is being loaded is left behind."""
        self._jobs.put(None)
        self._thread.join(STOP_S)

    def check_free(self) -> None:
        """Refuse a second load beside the first.

        Raises:
            LoadingError: One is being loaded already.
        """
        if self._loading.is_set():
            raise LoadingError("a model is being loaded already", hint="wait for its answer")

    def load(self, folder: Path, digest: str, done: Callable[[float, Exception | None], None]) -> None:
        """Load a model for `swap`; `done` gets the milliseconds it took, and the error if it does not load."""
        self._loading.set()
        self._jobs.put(lambda: self._load(folder, digest, done))

    def free(self) -> None:
        """Give the memory of forgotten models back."""
        self._jobs.put(self._slots.free)

    def _run(self) -> None:
        if self._threads == 1:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while (job := self._jobs.get()) is not None:
            job()

    def _load(self, folder: Path, digest: str, done: Callable[[float, Exception | None], None]) -> None:
        began_s = time.monotonic()
        failure: Exception | None = None
        try:
            self._slots.offer(load_model(folder, digest, self._threads))
        except (OmmatidError, OSError, MemoryError) as error:
            failure = error
            logger.warning("%s: does not load: %s", digest, error)
        load_ms = (time.monotonic() - began_s) * 1000
        self._slots.free()
        self._loading.clear()
        if failure is None:
            logger.info("%s: loaded in %.0f ms", digest, load_ms)
        done(load_ms, failure)
