"""The database is killed, or locked by somebody else, in the middle of everything: operations wait for it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.neighbours.flight import SLOW_HOSTS, Flight
from tests.processes.cloud import ProcessCloud, process_cloud


@pytest.fixture
async def on_postgres(tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    """Two hosts, and a PostgreSQL of their own."""
    async with process_cloud(tmp_path, hosts=(1, 1), postgres=True, simulated=SLOW_HOSTS) as cloud:
        yield cloud


@pytest.fixture
async def on_sqlite(tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    """Two hosts, and a file."""
    async with process_cloud(tmp_path, hosts=(1, 1), simulated=SLOW_HOSTS) as cloud:
        yield cloud


@pytest.mark.postgres
@pytest.mark.parametrize(
    "seconds", [0, pytest.param(5, marks=pytest.mark.slow)], ids=["for a moment", "while every step ends"]
)
async def test_every_operation_survives_a_kill_of_postgresql(on_postgres: ProcessCloud, seconds: float) -> None:
    assert on_postgres.postgres is not None
    flight = await Flight.take_off(on_postgres)
    on_postgres.postgres.process.kill()
    await asyncio.sleep(seconds)  # the length of the outage
    on_postgres.postgres.start()
    await flight.land()


@pytest.mark.postgres
async def test_a_control_worker_that_starts_before_its_database_is_of_use_when_it_is_there(
    on_postgres: ProcessCloud,
) -> None:
    assert on_postgres.postgres is not None
    [control] = on_postgres.controls
    on_postgres.postgres.process.kill()
    control.restart()
    control.said("waiting for the database")
    on_postgres.postgres.start()
    control.said("control worker ready", times=2)
    assert control.running


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(45, marks=pytest.mark.slow)], ids=["for a while", "longer than a step may take"]
)
async def test_every_operation_survives_a_writer_that_does_not_let_go_of_sqlite(
    on_sqlite: ProcessCloud, seconds: float
) -> None:
    flight = await Flight.take_off(on_sqlite)
    with locked(on_sqlite.settings.state_dir / "hostler.db"):
        await asyncio.sleep(seconds)  # how long it is locked
    await flight.land()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
