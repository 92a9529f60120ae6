"""The databases that tests run on: SQLite, and a PostgreSQL cluster of the session's own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Dialect, Engine, text

import models.database
import models.engines

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 -c listen_addresses=''"
KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
OTHER_SESSIONS = "datname = current_database() AND pid <> pg_backend_pid()"
"""Of PostgreSQL's `pg_stat_activity`, those of the same database."""


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
    yield add_postgres(postgres_server, name)
    as_superuser(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def add_postgres(server: str, name: str) -> str:
    """The URL of a new, empty database of a cluster."""
    as_superuser(server, f'CREATE DATABASE "{name}"')
    return f"postgresql://postgres@/{name}?host={server}"


def as_superuser(server: str, statement: str) -> None:
    """Have a cluster do what needs a connection that is in no transaction."""
    with psycopg.connect(host=server, user="postgres", autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, SQLite and then PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hostler.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    """Let all databases of a kind have the same dialect, and so each other's compiled statements.

    An engine compiles each statement once, and each cloud of the tests has an engine: a sixth of all their time.
    """
    dialects: dict[str, Dialect] = {}
    compiled: dict[Any, Any] = {}

    def make_engine(url: str) -> Engine:
        engine = models.engines.make_engine(url)
        engine.dialect = dialects.setdefault(engine.dialect.name, engine.dialect)
        engine.update_execution_options(compiled_cache=compiled)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.database, "make_engine", make_engine)
        yield


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no row, to be copied."""
    file = tmp_path_factory.mktemp("tables") / "hostler.db"
    make_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: str) -> str:
    """The URL of a PostgreSQL database with all tables, which tests have one after the other."""
    url = add_postgres(postgres_server, "tables")
    make_tables(url)
    return url


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[models.Database]:
    """A database with all tables and no row, SQLite and then PostgreSQL."""
    if request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("tables"), tmp_path / "hostler.db")
        database = models.Database(f"sqlite:///{file}")
    else:
        database = models.Database(request.getfixturevalue("postgres_tables"))
        empty(database)
    with contextlib.closing(database):
        yield database


def make_tables(url: str) -> None:
    """Give an empty database all tables. That takes a while: so most tests have some that were made before."""
    with contextlib.closing(models.Database(url)) as database:
        models.upgrade(database)


def empty(database: models.Database) -> None:
    """Delete all rows of a PostgreSQL database, and end what a test before has left open there.

    Dropping and creating a database, or truncating its tables, takes ten times as long.
    """
    with database.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHER_SESSIONS}"))
        for table in reversed(models.Table.metadata.sorted_tables):
            connection.execute(table.delete())
