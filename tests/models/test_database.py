"""Transactions: all or nothing, one writer after the other, and no blip reaches the caller."""

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, col, func, select

import models.database
from hostler.contract.errors import InvalidRequest, Unavailable
from models import Allocation, Database, Host, bump_generation, engines, upgrade
from models.schema import current
from tests.databases import OTHER_SESSIONS
from tests.rows import a_host, add
from workflows.steps import StepDefinition


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'deep' / 'down' / 'hostler.db'}")
    upgrade(database)
    return database


@pytest.fixture
def postgres(postgres_url: str) -> Database:
    database = Database(postgres_url)
    upgrade(database)
    return database


def count_hosts(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count(col(Host.id)))).one()


def test_a_write_is_there_for_the_next_reader(database: Database) -> None:
    add(database, a_host())
    assert count_hosts(database) == 1


def test_an_exception_takes_the_whole_write_back(database: Database) -> None:
    def write_and_fail(session: Session) -> None:
        session.add(a_host())
        session.flush()
        raise LookupError

    with pytest.raises(LookupError):
        database.run(write_and_fail)
    assert count_hosts(database) == 0


def test_rows_outlive_their_session(database: Database) -> None:
    host = database.run(lambda session: session.merge(a_host(name="alpha")))
    assert host.name == "alpha"


def test_what_is_referred_to_must_exist(database: Database) -> None:
    with pytest.raises(IntegrityError):
        add(database, Allocation(server_id="none", host_id="none", vcpus=1, ram_mib=1, disk_gib=1))


def test_threads_that_write_at_once_lose_nothing(database: Database) -> None:
    host = a_host()
    add(database, host)
    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(database.run, lambda session: bump_generation(session, host.id)) for _ in range(160)]
    assert all(each.result() for each in done)
    with database.read() as session:
        assert session.get_one(Host, host.id).generation == 160


def test_processes_that_share_a_sqlite_file_wait_for_each_other(sqlite: Database) -> None:
    host = a_host()
    add(sqlite, host)
    other = Database(sqlite.url)  # with a lock of its own, like another process
    with ThreadPoolExecutor(4) as pool:
        for database in (sqlite, other) * 40:
            pool.submit(database.run, lambda session: bump_generation(session, host.id))
    with sqlite.read() as session:
        assert session.get_one(Host, host.id).generation == 80


def test_the_sqlite_file_and_its_journal_are_for_their_owner_only(sqlite: Database) -> None:
    directory = Path(sqlite.engine.url.database or "").parent
    add(sqlite, a_host())
    files = list(directory.iterdir())
    assert {file.name for file in files} >= {"hostler.db", "hostler.db-wal"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_committed_row_survives_a_power_cut(sqlite: Database) -> None:
    full = 2
    with sqlite.read() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == full


def test_a_writer_does_not_wait_for_ever(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.database, "LOCK_TIMEOUT", 0.05)
    with sqlite.write(), ThreadPoolExecutor(1) as pool:
        refused = pool.submit(add, sqlite, a_host()).exception()
    assert isinstance(refused, Unavailable)


def test_any_number_may_open_a_new_sqlite_file_at_once(tmp_path: Path) -> None:
    for attempt in range(10):
        url = f"sqlite:///{tmp_path / str(attempt)}"
        with ThreadPoolExecutor(8) as pool:
            databases = [opened.result() for opened in [pool.submit(Database, url) for _ in range(8)]]
        with databases[0].read() as session:
            assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root@localhost/hostler"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Database(url)


@pytest.mark.postgres
def test_a_deadlock_is_tried_again(postgres: Database) -> None:
    first, second = a_host(), a_host()
    add(postgres, first, second)
    met = threading.Barrier(2)
    tries = []

    def crosswise(one: Host, other: Host) -> None:
        def work(session: Session) -> None:
            tries.append(one.id)
            bump_generation(session, one.id)
            if tries.count(one.id) == 1:
                met.wait()
            bump_generation(session, other.id)

        postgres.run(work)

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(crosswise, first, second), pool.submit(crosswise, second, first)]:
            each.result()
    assert len(tries) > 2  # who is tried again may meet the other a second time
    with postgres.read() as session:
        assert [host.generation for host in session.exec(select(Host))] == [2, 2]


@pytest.mark.postgres
def test_a_connection_that_drops_is_replaced(postgres: Database) -> None:
    tries = []

    def work(session: Session) -> None:
        tries.append(1)
        session.add(a_host())
        session.flush()
        if len(tries) == 1:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    postgres.run(work)
    assert len(tries) == 2
    assert count_hosts(postgres) == 1


@pytest.mark.postgres
def test_idle_connections_that_died_are_replaced(postgres: Database) -> None:
    assert count_hosts(postgres) == 0
    with Database(postgres.url).read() as session:
        session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHER_SESSIONS}"))
    assert count_hosts(postgres) == 0


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    nowhere = Database(f"postgresql://postgres@/hostler?host={tmp_path}")
    with pytest.raises(Unavailable, match="does not answer"):
        nowhere.run(lambda session: session.exec(select(Host)).all())
    with pytest.raises(Unavailable, match="does not answer"):
        count_hosts(nowhere)
    with pytest.raises(Unavailable, match="does not answer"):
        current(nowhere)


def test_a_write_is_over_before_the_step_that_makes_it_is_given_up(sqlite: Database) -> None:
    """Else a step that was tried again, done and undone meanwhile would be done once more, by nobody."""
    began = time.monotonic()
    other = Database(sqlite.url)
    with sqlite.write() as session:
        session.add(a_host())
        session.flush()
        with pytest.raises(Unavailable):
            other.run(lambda session: session.add(a_host()))
    assert timedelta(seconds=time.monotonic() - began) < StepDefinition(lambda: None).timeout


@pytest.mark.postgres
def test_a_lock_that_is_not_given_back_makes_others_unavailable_and_then_is_taken_away(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LOCK_TIMEOUT", 1)
    monkeypatch.setattr(models.database, "LOCK_TIMEOUT", 1)
    monkeypatch.setattr(engines, "IDLE_TIMEOUT", 4)
    database, host = Database(postgres_url), a_host()
    upgrade(database)
    add(database, host)
    frozen = Database(postgres_url).engine.connect()  # as a process that was stopped in its transaction
    frozen.execute(text("SELECT 1 FROM host WHERE id = :id FOR UPDATE"), {"id": host.id})

    with pytest.raises(Unavailable, match="lock timeout"):
        database.run(lambda session: bump_generation(session, host.id))
    deadline = time.monotonic() + 20
    while True:
        with suppress(Unavailable):
            database.run(lambda session: bump_generation(session, host.id))
            break
        assert time.monotonic() < deadline, "the lock is still there"
    frozen.invalidate()


def test_an_error_in_the_request_is_not_tried_again(database: Database) -> None:
    tries = []

    def work(session: Session) -> None:
        tries.append(1)
        session.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(Exception, match="nowhere"):
        database.run(work)
    assert len(tries) == 1


def test_an_error_does_not_repeat_the_values_that_a_statement_was_given(database: Database) -> None:
    statement = text("INSERT INTO nowhere VALUES (:secret)").bindparams(secret="hunter2")
    with database.write() as session, pytest.raises(DBAPIError) as caught:
        session.execute(statement)
    assert "nowhere" in str(caught.value)
    assert "hunter2" not in str(caught.value)
