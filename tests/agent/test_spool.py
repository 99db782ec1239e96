import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Spool
from ommatid.contract.messages import MAX_IN_FLIGHT, Event, Hello, Report, Window
from ommatid.errors import MessageError, StorageError
from tests.support.clock import HandClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    made = Spool(path, HandClock())
    yield made
    made.close()


def add_event(spool: Spool, text: str) -> None:
    spool.add(Event, name="test", severity="info", text=text)


def fill(spool: Spool) -> None:
    for _ in range(100):
        add_event(spool, "x" * 1900)


def texts(reports: list[Report]) -> list[str]:
    return [report.text for report in reports if isinstance(report, Event)]


def test_reports_are_numbered_in_order_when_they_are_first_published(spool: Spool) -> None:
    for number in range(3):
        add_event(spool, str(number))

    first = spool.pending()
    again = spool.pending()

    assert [(report.boot, report.seq) for report in first] == [(spool.boot, 1), (spool.boot, 2), (spool.boot, 3)]
    assert again == first
    assert first[0].sent_at == "1970-01-01T00:00:10.000Z"


def test_only_the_servers_word_forgets_a_report(spool: Spool) -> None:
    for number in range(3):
        add_event(spool, str(number))
    spool.pending()

    forgotten = spool.acknowledge(spool.boot, 2)
    strange = spool.acknowledge("0" * 32, 99)

    assert (forgotten, strange) == (2, 0)
    assert [report.seq for report in spool.pending()] == [3]
    assert len(spool) == 1


def test_reports_outlive_the_supervisor_under_their_old_name(path: Path) -> None:
    before = Spool(path, HandClock())
    add_event(before, "numbered")
    numbered = before.pending()
    add_event(before, "waiting")
    before.close()

    after = Spool(path, HandClock())
    add_event(after, "new")

    assert after.boot != before.boot
    names = [(report.boot, report.seq) for report in after.pending()]
    assert names == [(before.boot, numbered[0].seq), (before.boot, 2), (after.boot, 1)]
    after.close()


def test_a_full_spool_drops_events_before_windows_and_hellos_never_leaving_a_gap(path: Path) -> None:
    spool = Spool(path, HandClock(), most_bytes=4000)
    spool.add(Hello, agent="0.1.0", arch="x86_64")
    spool.add(Window, source="cam", started_at="", duration_s=1.0, frames=1, dropped=0)
    for number in range(40):
        add_event(spool, str(number))

    pending = spool.pending()

    assert spool.dropped > 10
    assert [report.seq for report in pending] == list(range(1, len(pending) + 1))
    assert [type(report) for report in pending[:2]] == [Hello, Window]
    assert texts(pending)[-1] == "39"
    spool.close()


def test_what_was_published_once_is_not_dropped(path: Path) -> None:
    spool = Spool(path, HandClock(), most_bytes=2000)
    add_event(spool, "published")
    spool.pending()

    for number in range(40):
        add_event(spool, str(number))

    assert texts(spool.pending())[0] == "published"
    spool.close()


def test_so_many_reports_are_in_flight_and_no_more(spool: Spool) -> None:
    for number in range(MAX_IN_FLIGHT + 10):
        add_event(spool, str(number))

    flying = spool.pending()
    spool.acknowledge(spool.boot, 10)
    later = spool.pending()

    assert len(flying) == len(later) == MAX_IN_FLIGHT
    assert later[-1].seq == MAX_IN_FLIGHT + 10


def test_a_report_that_is_not_one_is_refused_and_nothing_is_kept(spool: Spool) -> None:
    with pytest.raises(MessageError, match="severity"):
        spool.add(Event, name="test", severity="loud", text="")

    assert len(spool) == 0


def test_a_broken_database_is_set_aside(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)

    spool = Spool(path, HandClock())
    add_event(spool, "goes on")

    assert texts(spool.pending()) == ["goes on"]
    assert path.with_name("spool.db.broken").exists()
    spool.close()


def test_a_disk_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"spool\.db") as caught:
        Spool(tmp_path / "missing" / "spool.db", HandClock())

    assert caught.value.hint


def test_a_full_disk_is_told_and_what_was_there_stays(path: Path, spool: Spool) -> None:
    add_event(spool, "kept")
    spool._base.execute("PRAGMA max_page_count = 1")

    with pytest.raises(StorageError):
        fill(spool)

    spool._base.execute("PRAGMA max_page_count = 100000")
    assert texts(spool.pending())[0] == "kept"


def test_a_number_is_on_disk_before_it_is_on_the_air(path: Path, spool: Spool) -> None:
    add_event(spool, "one")

    seen = [report.seq for report in spool.pending()]

    other = sqlite3.connect(path)
    assert [row[0] for row in other.execute("SELECT seq FROM report")] == seen
    assert spool._base.execute("PRAGMA synchronous").fetchone() == (2,)
    other.close()
