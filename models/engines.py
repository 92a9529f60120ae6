"""SQLAlchemy engines for the two databases, and which of their errors are short blips."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from hostler.contract.errors import InvalidRequest

LOCK_TIMEOUT = 7
"""Seconds that a writer waits for its turn, for a lock, or for a connection.

A transaction waits at most three times so long, and must then be over: a step may take 30 s (start_to_close), and one
that has been given up by then must not change the database later, when its undo has been and gone.
"""
IDLE_TIMEOUT = 20
"""Seconds after which PostgreSQL ends a transaction whose process does nothing: it may be frozen, and has locks."""

HIDE_PARAMETERS = True
"""Errors go into logs and to clients: they have the statement, and not what it was given."""

SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE, IDLE_TOO_LONG = "40001", "40P01", "55P03", "25P03"


def make_engine(url: str) -> Engine:
    """The engine for `url`. On SQLite, an execution option `writes` makes its transactions those of a writer.

    Raises:
        InvalidRequest: another kind of database.
    """
    parsed = make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            return _postgresql(parsed)
    raise InvalidRequest("the database must be SQLite or PostgreSQL", field="database.url")


def is_blip(error: BaseException) -> bool:
    """Whether the same transaction may well succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or _is_busy(error.orig):
        return True
    state = getattr(error.orig, "sqlstate", None)
    # Class 08 is a broken connection, 57P a server that is starting or stopping; no state at all: it was not reached.
    return state in (SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE, IDLE_TOO_LONG) or (
        not isinstance(error.orig, sqlite3.Error)
        and type(error.orig).__name__ == "OperationalError"
        and (state is None or state.startswith(("08", "57P")))
    )


def _is_busy(error: BaseException | None) -> bool:
    """Whether another process kept SQLite's file locked. The low byte of its codes is the kind of error."""
    busy = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in busy


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise InvalidRequest("the database must be a file, for every thread to see it", field="database.url")
    _make_file(Path(url.database))
    engine = create_engine(
        url, pool_size=16, max_overflow=-1, connect_args={"timeout": LOCK_TIMEOUT}, hide_parameters=HIDE_PARAMETERS
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        # NORMAL may lose the last commits in a power cut. Temporal has then recorded steps as done whose rows are gone.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


# SQLite does not wait for its locks when it changes the journal's kind.
@retry(retry=retry_if_exception(_is_busy), stop=stop_after_delay(LOCK_TIMEOUT), wait=wait_random(0, 0.1), reraise=True)
def _make_file(file: Path) -> None:
    """Make the file, for its owner only: it holds the tenants' user data. Its journals take its mode."""
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer side by side; the file remembers it
    finally:
        connection.close()


def _postgresql(url: URL) -> Engine:
    driver = url.set(drivername="postgresql+psycopg")
    timeouts = f"-c lock_timeout={LOCK_TIMEOUT}s -c idle_in_transaction_session_timeout={IDLE_TIMEOUT}s"
    return create_engine(
        driver,
        isolation_level="READ COMMITTED",
        pool_size=16,
        max_overflow=16,
        pool_timeout=LOCK_TIMEOUT,
        pool_pre_ping=True,
        hide_parameters=HIDE_PARAMETERS,
        connect_args={
            "connect_timeout": LOCK_TIMEOUT,
            "tcp_user_timeout": 1000 * LOCK_TIMEOUT,  # a server that is gone without a word
            "options": f"{url.query.get('options', '')} {timeouts}".strip(),
        },
    )
