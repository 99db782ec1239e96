"""The loop, put together: readers fill the inbox, the calling thread infers, the server takes orders."""

import gc
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Final

import cv2

from agent.loop.capture import Reader
from agent.loop.config import LoopConfig
from agent.loop.inbox import Inbox
from agent.loop.pipeline import Pipeline
from agent.loop.protocol import Order, SourcePush, Status, encode_answer, encode_refusal, status_document
from agent.loop.server import Answer, Server
from agent.loop.slots import Slots
from agent.loop.sources import parse_source
from agent.loop.start import Start, find_model
from agent.loop.worker import Worker

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread may keep the interpreter. With one busy thread beside the loop its median latency was 33 ms at
the default of 5 ms, and 16 ms at this."""
JOIN_S: Final = 2.0

logger = logging.getLogger(__name__)


class Loop:
    """One loop process. `run` returns after `stop`."""

    def __init__(self, config: LoopConfig) -> None:
        """Put the parts together.

        Raises:
            BadInputError: A source is not named as one.
        """
        names = [source.name for source in config.sources]
        self._config = config
        self._began_s = time.monotonic()
        self._inbox = Inbox(names)
        self._slots = Slots()
        self._start = Start()
        self._server = Server(config.socket, self._handle)
        self._worker = Worker(self._slots, config.threads)
        self._pipeline = Pipeline(names, self._inbox, self._slots, self._server.push, quality=config.quality)
        self._readers = [
            Reader(
                source.name,
                parse_source(source.source),
                self._inbox,
                self._server.push,
                self._server.has_room if config.as_fast_as_possible else None,
            )
            for source in config.sources
        ]
        self._stopped = threading.Event()

    def run(self) -> None:
        """Start everything, and infer on this thread until `stop`.

        Raises:
            BadInputError: The socket cannot be made.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        cv2.setNumThreads(1)
        # Before anybody can ask: a loop that is still loading must not say that it runs nothing.
        self._start = find_model(self._config.models, self._config.threads)
        self._slots.start_with(self._start.held)
        self._server.start()
        try:
            self._worker.start()
            for reader in self._readers:
                reader.start()
            # What lives now lives for ever: the collector need not look at it again, in the middle of a frame.
            gc.collect()
            gc.freeze()
            if not self._stopped.is_set():
                self._pipeline.run()
        finally:
            self._end()

    def stop(self) -> None:
        """Let `run` return; may be called from a signal handler."""
        self._stopped.set()
        self._pipeline.stop()

    def _end(self) -> None:
        for reader in self._readers:
            reader.stop()
        self._inbox.close()
        for reader in self._readers:
            reader.join(JOIN_S)
        self._worker.stop()
        self._server.stop()

    def _handle(self, order: Order, answer: Answer) -> None:
        """Do an order, or hand it to the thread that does; each is answered by its number."""
        match order.name:
            case "status":
                answer(encode_answer(order.number, status_document(self._status())))
            case "load":
                self._load(order, answer)
            case "drop":
                self._slots.drop()
                self._pipeline.drop_accounts()
                self._worker.free()
                answer(encode_answer(order.number, {}))
            case "swap" | "back":
                self._slots.want(order.name, lambda error: _answer(answer, order.number, error))
                self._inbox.wake()

    def _load(self, order: Order, answer: Answer) -> None:
        self._worker.check_free()
        self._pipeline.drop_accounts()
        account = self._pipeline.begin_account()

        def loaded(load_ms: float, error: Exception | None) -> None:
            account.load_ms = load_ms
            if error is not None:
                self._pipeline.drop_accounts()
            _answer(answer, order.number, error, load_ms=load_ms)

        self._worker.load(Path(order.folder), order.digest, loaded)

    def _status(self) -> Status:
        active, loaded, previous = self._slots.digests()
        now_s, last_s = time.monotonic(), self._pipeline.last_frame_s
        return Status(
            uptime_s=now_s - self._began_s,
            active=active,
            loaded=loaded,
            previous=previous,
            loading=self._worker.loading,
            slot=self._start.slot,
            error=self._start.error,
            reason=self._start.reason,
            frames=self._pipeline.frames,
            errors=self._pipeline.errors,
            pushes_lost=self._server.pushes_lost,
            last_frame_ms_ago=None if last_s is None else (now_s - last_s) * 1000,
            sources=self._pipeline.figures(self._states()),
            last_swap=self._pipeline.last_swap,
        )

    def _states(self) -> list[SourcePush]:
        return [reader.state for reader in self._readers]


def _answer(answer: Answer, number: int, error: Exception | None, **result: float) -> None:
    answer(encode_answer(number, result) if error is None else encode_refusal(number, error))
