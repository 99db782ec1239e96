"""Publications that the broker has not answered yet."""

import threading
from collections.abc import Callable

Done = Callable[[bool], None]


class InFlight:
    """Those of one connection. An answer may come before whoever published could say that it waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Done | None] = {}
        self._early: dict[int, bool] = {}
        self._closed = False

    def expect(self, number: int, done: Done | None) -> bool | None:
        """Note who waits for the answer; return the outcome where it, or the end of the connection, was faster."""
        with self._lock:
            outcome = False if self._closed else self._early.pop(number, None)
            if outcome is None:
                self._waiting[number] = done
            return outcome

    def answered(self, number: int, *, taken: bool) -> Done | None:
        """Take an answer; return who waited for it."""
        with self._lock:
            if number in self._waiting:
                return self._waiting.pop(number)
            self._early[number] = taken
            return None

    def close(self) -> list[Done]:
        """Expect no more answers; return who waited for one."""
        with self._lock:
            self._closed = True
            unanswered = [done for done in self._waiting.values() if done is not None]
            self._waiting.clear()
            return unanswered
