"""The loop's Unix socket: orders come in, answers and pushes go out, and nothing that is sent here stops the loop.

One supervisor at a time: a new connection takes the place of the old one, which may be dead without our knowing. A
push is sent at once where the socket has room; else it waits in a bounded buffer; when that is full it is lost, and
counted. Answers are never lost: who does not read them is cut off.
"""

import fcntl
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from agent.loop.protocol import MAX_LINE_BYTES, Order, Push, decode_order, encode_push, encode_refusal
from ommatid.errors import BadInputError, OmmatidError

MOST_WAITING_BYTES: Final = 1024 * 1024
MOST_ANSWER_BYTES: Final = 4 * MOST_WAITING_BYTES
SOCKET_MODE: Final = 0o600
_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC

Answer: TypeAlias = Callable[[bytes], None]
"""Sends the line of an answer to whoever gave the order, if that one is still connected."""

logger = logging.getLogger(__name__)


class Server:
    """The thread that reads orders; `push` and each order's answer may come from any thread, and never block."""

    def __init__(self, path: Path, handle: Callable[[Order, Answer], None]) -> None:
        """Prepare to listen at `path`; `handle` is called on the server's thread with an order and how to answer it."""
        self._path = path
        self._handle = handle
        self._lock = threading.Lock()
        self._client: socket.socket | None = None
        self._waiting = bytearray()
        self._unread = b""
        self._stopped = threading.Event()
        self._selector = selectors.EpollSelector()  # the one that another thread may change while it waits
        self._waker, self._woken = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock_file = -1
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self.pushes_lost = 0

    def start(self) -> None:
        """Listen; a socket file left by a loop that died is replaced.

        Raises:
            BadInputError: The socket cannot be made, or another loop listens there.
        """
        try:
            self._lock_file = os.open(self._path.with_name(f"{self._path.name}.lock"), _LOCK_FLAGS, SOCKET_MODE)
            self._listen()
        except OSError as error:
            raise BadInputError(
                f"{self._path}: cannot listen here: {error.strerror or error}",
                hint="is another loop running? A socket's path has at most 107 bytes, and its folder must exist",
            ) from error
        for readable in (self._listener, self._woken):
            readable.setblocking(False)
            self._selector.register(readable, selectors.EVENT_READ)
        self._waker.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Send what can be sent at once, close, and remove the socket file."""
        self._stopped.set()
        self._wake()
        self._thread.join(5.0)
        with self._lock:
            self._close_client()
        self._path.unlink(missing_ok=True)
        for each in (self._listener, self._waker, self._woken):
            each.close()
        self._selector.close()
        os.close(self._lock_file)

    def has_room(self) -> bool:
        """Tell whether a supervisor is there and reads: what is pushed now will not be lost."""
        return self._client is not None and len(self._waiting) < MOST_WAITING_BYTES // 2

    def push(self, push: Push) -> None:
        """Tell the supervisor, if there is one that reads."""
        if self._client is None:
            return
        line = encode_push(push)
        with self._lock:
            if len(self._waiting) + len(line) > MOST_WAITING_BYTES:
                self.pushes_lost += 1
            else:
                self._send(line)

    def _listen(self) -> None:
        # A lock, and not a trial connection, tells a living loop from a dead one's file: a connection would take the
        # place of its supervisor. The system drops the lock with the process.
        fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self._path.is_socket():
            self._path.unlink()
        before = os.umask(0o777 & ~SOCKET_MODE)  # a chmod after the bind would leave a moment for others to connect
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._listener.listen(4)

    def _run(self) -> None:
        while not self._stopped.is_set():
            for key, events in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._drain_wakes()
                elif key.fileobj is self._client:
                    self._serve(events)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            logger.warning("%s: %s", self._path, error)
            return
        client.setblocking(False)
        with self._lock:
            self._close_client()
            self._client = client
            self._unread = b""
            self._selector.register(client, selectors.EVENT_READ)
        logger.info("%s: a supervisor connected", self._path)

    def _serve(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            with self._lock:
                self._flush()
        if events & selectors.EVENT_READ:
            self._read()

    def _read(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            chunk = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            self._take(line, client)
        if not chunk or len(self._unread) > MAX_LINE_BYTES:
            with self._lock:
                if self._client is client:
                    self._close_client()
            logger.info("%s: the supervisor went away", self._path)

    def _take(self, line: bytes, client: socket.socket) -> None:
        answer = partial(self._answer, client)
        order: Order | None = None
        try:
            order = decode_order(line)
            self._handle(order, answer)
        except OmmatidError as error:
            logger.warning("%s: %s", self._path, error)
            answer(encode_refusal(order.number if order else None, error))
        except Exception as error:  # whatever an order does, the next one is read
            logger.exception("%s: an order failed", self._path)
            answer(encode_refusal(order.number if order else None, error))

    def _answer(self, client: socket.socket, line: bytes) -> None:
        with self._lock:
            if self._client is not client:  # another supervisor has orders of the same numbers
                return
            if len(self._waiting) + len(line) > MOST_ANSWER_BYTES:
                logger.warning("%s: the supervisor reads no answers; cut off", self._path)
                self._close_client()
            else:
                self._send(line)

    def _send(self, line: bytes) -> None:
        """Send or keep a line; the lock is held."""
        if self._client is None:
            return
        self._waiting += line
        if len(self._waiting) == len(line):
            self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as the socket takes it; the lock is held."""
        if self._client is None:
            return
        try:
            while self._waiting:
                del self._waiting[: self._client.send(self._waiting)]
        except BlockingIOError:
            self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE)
        except OSError:
            self._close_client()
        else:
            self._watch(selectors.EVENT_READ)

    def _watch(self, events: int) -> None:
        if self._client is not None and self._selector.get_key(self._client).events != events:
            self._selector.modify(self._client, events)

    def _close_client(self) -> None:
        """Forget the supervisor; the lock is held."""
        if self._client is not None:
            self._selector.unregister(self._client)
            self._client.close()
        self._client = None
        self._waiting.clear()

    def _wake(self) -> None:
        try:
            self._waker.send(b"w")
        except BlockingIOError:
            return  # wakes enough are on their way

    def _drain_wakes(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return
