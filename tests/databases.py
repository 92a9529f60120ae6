"""The databases that tests run on: SQLite, and a PostgreSQL cluster of the session's own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import models

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 -c listen_addresses=''"


def postgres_binaries() -> Path | None:
    """Where the newest PostgreSQL server's programs are, on Debian or in the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def run_postgres(binaries: Path) -> Iterator[str]:
    """A cluster that is gone afterwards. Yields its directory, where its socket is."""
    # PostgreSQL refuses to run as root, and its user cannot look into root's directories.
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="hostler-postgres-") as directory:
        if as_owner:
            shutil.chown(directory, "postgres")

        def call(program: str, *arguments: str) -> None:
            command = [*as_owner, str(binaries / program), "-D", f"{directory}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)

        call("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8")
        call("pg_ctl", "start", "--wait", "-l", f"{directory}/log", "-o", f"-k {directory} {FAST}")
        try:
            yield directory
        finally:
            call("pg_ctl", "stop", "--wait", "-m", "immediate")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The directory of a PostgreSQL cluster that all tests share."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.fail("no PostgreSQL server is installed: `make test` installs it")
    with run_postgres(binaries) as directory:
        yield directory


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(host=postgres_server, user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"postgresql://postgres@/{name}?host={postgres_server}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, SQLite and then PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hostler.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[models.Database]:
    """A database with all tables, SQLite and then PostgreSQL."""
    database = models.Database(database_url)
    models.upgrade(database)
    yield database
    database.close()
