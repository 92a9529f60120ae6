"""The database: one engine, and the transactions on it.

`read()` and `write()` are one transaction each; `run()` is a write that is repeated whole when a short blip broke it.

SQLite is one file with one writer. Its writers say so when they begin (`BEGIN IMMEDIATE`), and the threads of this
process queue for their turn on a lock, which is fairer and much faster than SQLite's own waiting, a sleep that doubles.
PostgreSQL runs at READ COMMITTED; who changes what a decision depends on locks the row it depends on.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from hostler.contract.errors import InvalidRequest, Unavailable

T = TypeVar("T")

LOCK_TIMEOUT = 30
"""Seconds that a writer waits for its turn."""

ATTEMPTS = 5
SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"


class Database:
    """The control worker's database; its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        """`url` is SQLAlchemy's: `sqlite:///file` or `postgresql://...`.

        Raises:
            InvalidRequest: another kind of database.
        """
        self.url = url
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _prepare_file(parsed.database)
            self.engine = _sqlite_engine(url)
        elif parsed.get_backend_name() == "postgresql":
            self.engine = _postgresql_engine(url)
        else:
            raise InvalidRequest("the database must be SQLite or PostgreSQL", field="database.url")
        self._writer = self.engine.execution_options(writes=True)
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end, or rolled back by an exception.

        Raises:
            Unavailable: other writers took longer than `LOCK_TIMEOUT`.
        """
        with self._my_turn(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a write transaction, repeated whole after a deadlock or a lost connection.

        The connection may be lost just after the commit, so `work` must bear being done twice, as activities do.

        Raises:
            Unavailable: the database did not answer `ATTEMPTS` times.
        """
        try:
            for attempt in Retrying(
                retry=retry_if_exception(is_blip),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.05, max=1),
                reraise=True,
            ):
                with attempt, self.write() as session:
                    return work(session)
        except DBAPIError as error:
            if is_blip(error):
                raise Unavailable(f"the database does not answer: {error.orig}") from error
            raise
        raise AssertionError("tenacity returns or raises")

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A bare connection in a write transaction, for the schema."""
        with self._my_turn(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=LOCK_TIMEOUT):
            raise Unavailable("the database is busy: other writers do not end")
        try:
            yield
        finally:
            self._turn.release()


def is_blip(error: BaseException) -> bool:
    """Whether the same transaction may well succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(error.orig, "sqlstate", None)
    # Class 08 is a broken connection, 57P a server that is starting or stopping; no state at all: it was not reached.
    return state in (SERIALIZATION_FAILURE, DEADLOCK) or (
        type(error.orig).__name__ == "OperationalError" and (state is None or state.startswith(("08", "57P")))
    )


def _prepare_file(name: str | None) -> None:
    """Make the file, for its owner only: it holds the tenants' user data. Its journals take its mode."""
    if not name or name == ":memory:":
        raise InvalidRequest("the database must be a file, for every thread to see it", field="database.url")
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, pool_size=16, max_overflow=-1, connect_args={"timeout": LOCK_TIMEOUT})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL may lose the last commits in a power cut. Temporal has then recorded steps as done whose rows are gone.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: str) -> Engine:
    driver = make_url(url).set(drivername="postgresql+psycopg")
    return create_engine(driver, isolation_level="READ COMMITTED", pool_size=16, max_overflow=16, pool_pre_ping=True)
