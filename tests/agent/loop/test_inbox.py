import threading

import numpy as np

from agent.loop.inbox import Counts, Inbox
from ommatid.vision.frame import Frame


def frame(source: str, index: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, source, captured_ns=0, captured_at=0.0)


def test_the_newest_frame_wins_and_the_unread_one_is_counted() -> None:
    inbox = Inbox(["a"])

    for index in range(3):
        inbox.put(frame("a", index))
    taken = inbox.take(0)

    assert taken is not None
    assert taken.index == 2
    assert inbox.counts("a") == Counts(captured=3, dropped=2)
    assert inbox.take(0) is None


def test_a_fast_source_does_not_starve_a_slow_one() -> None:
    inbox = Inbox(["fast", "slow"])
    inbox.put(frame("slow", 0))

    order = []
    for index in range(3):
        inbox.put(frame("fast", index))
        taken = inbox.take(0)
        assert taken is not None
        order.append(taken.source)

    assert order == ["fast", "slow", "fast"]
    assert inbox.totals() == Counts(captured=4, dropped=1)


def test_a_reader_that_waits_loses_nothing() -> None:
    inbox = Inbox(["a"])

    def read() -> None:
        for index in range(50):
            inbox.put_when_free(frame("a", index))

    reader = threading.Thread(target=read)
    reader.start()

    indices = [taken.index for _ in range(50) if (taken := inbox.take(5)) is not None]
    reader.join(5)

    assert indices == list(range(50))
    assert inbox.counts("a").dropped == 0


def test_a_taken_frame_is_done_when_the_next_is_asked_for() -> None:
    inbox = Inbox(["a"])
    inbox.put(frame("a", 0))
    done = threading.Event()

    def wait() -> None:
        inbox.wait_until_done("a")
        done.set()

    waiter = threading.Thread(target=wait)
    waiter.start()

    inbox.take(0)
    before = done.wait(0.1)
    inbox.take(0)

    assert not before
    assert done.wait(5)
    waiter.join(5)


def test_closing_lets_every_waiting_thread_go() -> None:
    inbox = Inbox(["a"])
    inbox.put(frame("a", 0))
    threads = [
        threading.Thread(target=inbox.put_when_free, args=[frame("a", 1)]),
        threading.Thread(target=inbox.wait_until_done, args=["a"]),
    ]
    for thread in threads:
        thread.start()

    inbox.close()

    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_wake_ends_a_wait_without_a_frame() -> None:
    inbox = Inbox(["a"])
    inbox.wake()

    assert inbox.take(60) is None
