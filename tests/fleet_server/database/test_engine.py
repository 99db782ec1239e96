"""The database: migrations, sessions and numbers that only grow."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from fleet_server.database.counters import next_number
from fleet_server.database.engine import Database, insert_once
from fleet_server.database.models import Audit, Base, Counter, Watermark
from ommatid.errors import StorageError


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "fleet.db")
    database.migrate()
    return database


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.read() as session:
        context = MigrationContext.configure(session.connection())
        differences = compare_metadata(context, Base.metadata)

    assert differences == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.write() as session:
        next_number(session, "rev")

    database.migrate()

    with database.write() as session:
        assert next_number(session, "rev") == 2


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(StorageError, match="cannot be used"):
        Database.at(path).migrate()


def test_a_row_without_its_parent_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Watermark(device_id="nobody", boot="0" * 32, seq=1))


def test_a_block_that_raises_leaves_nothing_behind(database: Database) -> None:
    def count_and_fail() -> None:
        with database.write() as session:
            next_number(session, "rev")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        count_and_fail()

    with database.read() as session:
        assert session.get(Counter, "rev") is None


def test_threads_that_count_at_once_never_get_the_same_number(database: Database) -> None:
    taken: list[int] = []

    def count() -> None:
        for _ in range(10):
            with database.write() as session:
                taken.append(next_number(session, "rev"))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == list(range(1, 41))


def test_a_moment_comes_back_in_utc(database: Database) -> None:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    with database.write() as session:
        session.add(Audit(tenant="default", at=at, who="me", what="test", subject="time"))

    with database.read() as session:
        assert session.scalars(select(Audit)).one().at == at


def test_inserting_once_skips_what_is_there(database: Database) -> None:
    with database.write() as session:
        insert_once(session, Counter, [{"name": "a", "value": 1}])
        insert_once(session, Counter, [{"name": "a", "value": 9}, {"name": "b", "value": 2}])

    with database.read() as session:
        values = {row.name: row.value for row in session.scalars(select(Counter))}
    assert values == {"a": 1, "b": 2}
