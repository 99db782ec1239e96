"""Hand director documents from the thread that receives them to the one that updates: the newest alone."""

import threading


class Offers:
    """The newest director document that was not looked at yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: bytes | None = None
        self._not_before_s = 0.0

    @property
    def waiting(self) -> bool:
        """Tell whether a document waits that the engine has not seen."""
        with self._lock:
            return self._waiting is not None and self._not_before_s == 0.0

    def put(self, document: bytes) -> None:
        """Keep a document, in place of an older one."""
        with self._lock:
            if document != self._waiting:
                self._waiting, self._not_before_s = document, 0.0

    def due(self, now_s: float) -> bytes | None:
        """Return the document, if it is time to look at it."""
        with self._lock:
            return self._waiting if now_s >= self._not_before_s else None

    def later(self, document: bytes, not_before_s: float) -> None:
        """Look again later, unless a newer one came."""
        with self._lock:
            if self._waiting == document:
                self._not_before_s = not_before_s

    def taken(self, document: bytes) -> None:
        """Forget a document, unless a newer one came."""
        with self._lock:
            if self._waiting == document:
                self._waiting = None
