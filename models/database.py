"""The database: one engine, and the transactions on it.

`read()` and `write()` are one transaction each; `run()` is a write that is repeated whole when a short blip broke it.

SQLite is one file with one writer. Its writers say so when they begin (`BEGIN IMMEDIATE`), and the threads of this
process queue for their turn on a lock, which is fairer and much faster than SQLite's own waiting, a sleep that doubles.
PostgreSQL runs at READ COMMITTED; who changes what a decision depends on locks the row it depends on.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from hostler.contract.errors import Unavailable
from models.engines import LOCK_TIMEOUT, is_blip, make_engine

T = TypeVar("T")

ATTEMPTS = 5


class Database:
    """The control worker's database; its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        """`url` is SQLAlchemy's: `sqlite:///file` or `postgresql://...`.

        Raises:
            InvalidRequest: another kind of database.
        """
        self.url = url
        self.engine = make_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = self.engine.execution_options(writes=True)
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads.

        Raises:
            Unavailable: the database does not answer.
        """
        with blips_as_unavailable(), Session(self.engine, expire_on_commit=False) as session:
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
            Unavailable: the database did not answer `ATTEMPTS` times, or for too long.
        """
        with blips_as_unavailable():
            for attempt in Retrying(
                retry=retry_if_exception(is_blip),
                stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(LOCK_TIMEOUT),
                wait=wait_random_exponential(multiplier=0.05, max=1),
                reraise=True,
            ):
                with attempt, self.write() as session:
                    return work(session)
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


@contextmanager
def blips_as_unavailable() -> Iterator[None]:
    """Raise what a database that is away, or busy for long, makes of a call as what it means to callers.

    Raises:
        Unavailable: the same call may succeed later.
    """
    try:
        yield
    except DBAPIError as error:
        if not is_blip(error):
            raise
        message = " ".join(str(error.orig).split())
        raise Unavailable(f"the database does not answer: {message}", remedy="see that it runs") from error
