"""Hold the newest frame of each source; drop the ones nobody read.

Inference is slower than capture on most boards, so a queue would only add delay. Many readers put, one thread takes,
source after source, so that a fast camera cannot starve a slow one.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ommatid.vision.frame import Frame


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames so far: `captured` were put, `dropped` of them were replaced before anybody read them."""

    captured: int = 0
    dropped: int = 0


class Inbox:
    """One slot a source, safe between the readers and the one thread that takes."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Make an empty slot for each name."""
        self._changed = threading.Condition()
        self._order = list(sources)
        self._slots: dict[str, Frame] = {}
        self._counts = dict.fromkeys(sources, Counts())
        self._busy_with: str | None = None
        self._woken = False
        self._closed = False

    def put(self, frame: Frame) -> None:
        """Store `frame` without blocking, replacing an unread one of the same source."""
        with self._changed:
            self._store(frame)

    def put_when_free(self, frame: Frame) -> None:
        """Wait until the frame before was read, then store `frame`; after `close` store nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or frame.source not in self._slots)
            if not self._closed:
                self._store(frame)

    def take(self, timeout_s: float) -> Frame | None:
        """Return the newest frame of the next source, or None after `timeout_s` or a `wake`.

        The frame taken before counts as done.
        """
        with self._changed:
            self._busy_with = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._slots or self._woken or self._closed, timeout_s)
            self._woken = False
            return self._next()

    def wait_until_done(self, source: str) -> None:
        """Wait until every frame of a source was taken and dealt with, or the inbox closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (source in self._slots or source == self._busy_with))

    def wake(self) -> None:
        """Make a waiting `take` return now, without a frame if there is none."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let every waiting thread go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def counts(self, source: str) -> Counts:
        """Return the counts of one source."""
        with self._changed:
            return self._counts[source]

    def totals(self) -> Counts:
        """Return the counts of all sources together."""
        with self._changed:
            counts = list(self._counts.values())
        return Counts(sum(each.captured for each in counts), sum(each.dropped for each in counts))

    def _store(self, frame: Frame) -> None:
        before = self._counts[frame.source]
        unread = frame.source in self._slots
        self._counts[frame.source] = Counts(before.captured + 1, before.dropped + unread)
        self._slots[frame.source] = frame
        self._changed.notify_all()

    def _next(self) -> Frame | None:
        for place, source in enumerate(self._order):
            if source in self._slots:
                self._order.append(self._order.pop(place))
                self._busy_with = source
                self._changed.notify_all()
                return self._slots.pop(source)
        return None
