"""Open the database: SQLite in write-ahead mode by default, PostgreSQL by URL.

A transaction that writes says so from the start. SQLite refuses at once, without waiting, to turn a reader whose
snapshot is old into a writer; a writer that begins as one waits its turn.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any, Final

from sqlalchemy import Connection, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from fleet_server.database.models import Base
from ommatid.errors import StorageError

BUSY_TIMEOUT_MS: Final = 15_000
CONNECTIONS: Final = 25
"""Twice as many at most: one for each of the 40 threads that answer HTTP, and for our own."""
MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Database:
    """Sessions on one database; safe to share between threads, a session is not."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=CONNECTIONS)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._read = sessionmaker(self._engine, expire_on_commit=False)
        self._write = sessionmaker(self._engine.execution_options(writes=True), expire_on_commit=False)

    @classmethod
    def at(cls, path: Path) -> "Database":
        """Open the SQLite database in the file `path`."""
        return cls(f"sqlite:///{path}")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session on one consistent snapshot; its changes are not stored."""
        with self._read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session that is committed at the end of the block, or rolled back when it raises."""
        with self._write() as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables to this release's shape.

        Raises:
            StorageError: It is not a database, or one of a newer release.
        """
        # Only a server migrates, once; every other program that reads a table starts twice as fast without Alembic.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        try:
            with self._engine.connect() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except (DatabaseError, CommandError) as error:
            raise StorageError(
                f"{self.url}: the database cannot be used: {getattr(error, 'orig', None) or error}",
                hint="restore it from a backup, or run the release of `fleet` that last wrote it",
            ) from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def insert_once(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, skipping those whose key is there already."""
    if not rows:
        return
    dialect = session.get_bind().dialect.name
    target = table.__table__
    if not isinstance(target, Table):
        raise TypeError(f"{table.__name__} is not a table")
    insert = postgresql.insert(target) if dialect == "postgresql" else sqlite.insert(target)
    session.execute(insert.on_conflict_do_nothing(), list(rows))


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    if not isinstance(connection, SqliteConnection):
        raise TypeError("not a SQLite connection")
    connection.isolation_level = None  # we say BEGIN ourselves, in _begin_sqlite
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # an acknowledged report must survive a power cut
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
