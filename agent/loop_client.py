"""The supervisor's end of the loop's socket: orders go out, pushes come in, and a lost link is made again.

One thread reads; orders may come from any thread. Nothing is queued for a loop that is away: an order fails at once
or after its time, with LinkError, and the caller decides.
"""

import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from agent.loop.protocol import (
    MAX_LINE_BYTES,
    Order,
    OrderName,
    Push,
    Status,
    decode_object,
    decode_push,
    decode_status,
    encode_order,
)
from ommatid.errors import LinkError, MessageError

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 0.5
KEPT_PUSHES: Final = 1000
ORDER_S: Final = 10.0
"""An order that takes longer has failed; only loading may."""

logger = logging.getLogger(__name__)


class OrderRefusedError(LinkError):
    """The loop could not do an order; what it ran before, it runs still."""

    def __init__(self, order: OrderName, error: str, reason: str, hint: str | None) -> None:
        """Keep the class of the loop's own error in `error`, and its text in `reason`."""
        super().__init__(f"the loop refused `{order}`: {error}: {reason}", hint=hint)
        self.error = error
        self.reason = reason


@dataclass(slots=True)
class _Waiting:
    """One order on its way."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Mapping[str, Any] | None = None


class LoopClient:
    """A link to one loop, made again whenever it breaks."""

    def __init__(self, path: Path, on_push: Callable[[Push], None] | None = None) -> None:
        """Prepare the link; `on_push` is called on the reading thread, else read `pushes`."""
        self._path = path
        self._on_push = on_push
        self._lock = threading.Lock()
        self._linked = threading.Event()
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._last_number = 0
        self._pushes: queue.Queue[Push | None] = queue.Queue(KEPT_PUSHES)
        self._reader = threading.Thread(target=self._keep_linked, name="loop-client", daemon=True)
        self.pushes_lost = 0

    def __enter__(self) -> Self:
        """Start to link, without waiting for it."""
        self._start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the link."""
        self.close()

    @property
    def linked(self) -> bool:
        """Tell whether the loop is there now."""
        return self._linked.is_set()

    def connect(self, timeout_s: float = 10.0) -> None:
        """Wait until the loop is there; afterwards the link is kept by itself.

        Raises:
            LinkError: It is not there in time; the client goes on trying.
        """
        self._start()
        if not self._linked.wait(timeout_s):
            raise LinkError(f"{self._path}: no loop answers here", hint="is `edge-agent loop` running?")

    def load(self, folder: Path, digest: str, timeout_s: float = 120.0) -> float:
        """Load and warm up the model in `folder` beside the running one; return how long it took, in ms.

        Raises:
            OrderRefusedError: The model does not load; the old one runs on.
            LinkError: The loop is away, or takes too long.
        """
        answer = self._order("load", timeout_s, folder=str(folder), digest=digest)
        return float(answer.get("load_ms", 0.0))

    def swap(self) -> None:
        """Run the loaded model from the next frame on; what ran before stays loaded for `back`.

        Raises:
            OrderRefusedError: Nothing is loaded.
            LinkError: The loop is away, or takes too long.
        """
        self._order("swap", ORDER_S)

    def back(self) -> None:
        """Run what ran before the last swap, from the next frame on.

        Raises:
            OrderRefusedError: There is nothing to go back to.
            LinkError: The loop is away, or takes too long.
        """
        self._order("back", ORDER_S)

    def drop(self) -> None:
        """Free the loaded and the previous model, so that only the active one holds memory.

        Raises:
            LinkError: The loop is away, or takes too long.
        """
        self._order("drop", ORDER_S)

    def status(self, timeout_s: float = 10.0) -> Status:
        """Return what the loop does now.

        Raises:
            LinkError: The loop is away, takes too long, or says what this release does not understand.
        """
        try:
            return decode_status(self._order("status", timeout_s))
        except MessageError as error:
            raise LinkError(f"{self._path}: {error}", hint="loop and supervisor must be of one release") from error

    def pushes(self) -> Iterator[Push]:
        """Yield pushes as they come, over all reconnections, until `close`; unread ones beyond 1000 are lost."""
        while (push := self._pushes.get()) is not None:
            yield push

    def close(self) -> None:
        """Close the link for good; orders on their way fail."""
        self._stopped.set()
        with self._lock:
            _shut(self._socket)
        if self._reader.is_alive() and threading.current_thread() is not self._reader:
            self._reader.join(timeout=5.0)
        self._keep(None)

    def _start(self) -> None:
        with self._lock:
            if self._reader.ident is None:
                self._reader.start()

    def _order(self, name: OrderName, timeout_s: float, *, folder: str = "", digest: str = "") -> Mapping[str, Any]:
        waiting = _Waiting()
        with self._lock:
            if self._socket is None:
                raise LinkError(f"{self._path}: no loop answers here", hint="is `edge-agent loop` running?")
            self._last_number += 1
            number = self._last_number
            self._waiting[number] = waiting
            try:
                self._socket.sendall(encode_order(Order(number, name, folder, digest)))
            except OSError as error:
                del self._waiting[number]
                raise LinkError(f"{self._path}: the loop went away: {error}") from error
        in_time = waiting.done.wait(timeout_s)
        with self._lock:
            self._waiting.pop(number, None)
        if not in_time:
            raise LinkError(f"{self._path}: no answer to `{name}` in {timeout_s:g} s")
        if waiting.answer is None:
            raise LinkError(f"{self._path}: the loop went away during `{name}`")
        return _checked(name, waiting.answer)

    def _keep_linked(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stopped.is_set():
            try:
                link = self._open()
            except OSError:
                self._stopped.wait(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
                continue
            retry_s = FIRST_RETRY_S
            logger.info("%s: linked", self._path)
            try:
                self._read(link)
            finally:
                self._unlink(link)

    def _open(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(str(self._path))
        except OSError:
            link.close()
            raise
        with self._lock:
            self._socket = link
            self._linked.set()
            if self._stopped.is_set():  # `close` came between the two, and could not shut what was not there
                _shut(link)
        return link

    def _unlink(self, link: socket.socket) -> None:
        with self._lock:
            self._socket = None
            self._linked.clear()
            lost, self._waiting = self._waiting, {}
            link.close()
        for waiting in lost.values():
            waiting.done.set()
        if not self._stopped.is_set():
            logger.warning("%s: link lost", self._path)
            self._stopped.wait(FIRST_RETRY_S)

    def _read(self, link: socket.socket) -> None:
        rest = b""
        while True:
            try:
                chunk = link.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(rest) > MAX_LINE_BYTES:
                logger.warning("%s: a line without end", self._path)
                return

    def _take(self, line: bytes) -> None:
        try:
            document = decode_object(line)
            if "answer" in document:
                self._take_answer(document)
            else:
                self._take_push(decode_push(document))
        except MessageError as error:
            logger.warning("%s: %s", self._path, error)

    def _take_answer(self, document: Mapping[str, Any]) -> None:
        with self._lock:
            waiting = self._waiting.pop(document["answer"], None) if isinstance(document["answer"], int) else None
        if waiting is not None:
            waiting.answer = document
            waiting.done.set()

    def _take_push(self, push: Push) -> None:
        if self._on_push is None:
            self._keep(push)
            return
        try:
            self._on_push(push)
        except Exception:  # whatever a listener does wrong, the link and the orders on it go on
            logger.exception("%s: a listener failed", self._path)

    def _keep(self, push: Push | None) -> None:
        while True:
            try:
                self._pushes.put_nowait(push)
            except queue.Full:
                self._lose_one()
            else:
                return

    def _lose_one(self) -> None:
        try:
            self._pushes.get_nowait()
            self.pushes_lost += 1
        except queue.Empty:
            return


def _checked(order: OrderName, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if answer.get("ok") is True:
        return answer
    hint = answer.get("hint")
    raise OrderRefusedError(
        order, str(answer.get("error")), str(answer.get("reason")), hint if isinstance(hint, str) else None
    )


def _shut(link: socket.socket | None) -> None:
    if link is None:
        return
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
