"""Tell waiting threads that something in the database changed, so that nobody polls in a tight loop."""

import threading


class Changes:
    """A number that grows with each change; a waiter names the last one it saw and misses none."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._number = 0
        self._closed = False

    @property
    def number(self) -> int:
        """Return the number of changes so far."""
        with self._condition:
            return self._number

    @property
    def closed(self) -> bool:
        """Tell whether the server is stopping: who waits here shall end."""
        return self._closed

    def close(self) -> None:
        """Say that there will be no more changes, and wake everybody."""
        self._closed = True
        self.notify()

    def notify(self) -> None:
        """Say that something changed."""
        with self._condition:
            self._number += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until more than `seen` changes happened, at most `timeout_s` seconds; return their number."""
        with self._condition:
            self._condition.wait_for(lambda: self._number > seen, timeout_s)
            return self._number
