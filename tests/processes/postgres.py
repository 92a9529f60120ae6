"""A PostgreSQL cluster of a test's own, as a child process that may be killed at any time."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from tests.databases import postgres_binaries
from tests.processes.process import Process

# What was committed survives the death of the processes; fsync is for that of the machine.
SETTINGS = {"fsync": "off", "max_connections": "200", "listen_addresses": "", "log_min_messages": "fatal"}
START_SECONDS = 60
DATABASE = "hostler"


@dataclass(frozen=True)
class Postgres:
    """The postmaster, and the URL of an empty database."""

    process: Process
    socket: str

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"postgresql://postgres@/{DATABASE}?host={self.socket}"

    def start(self) -> None:
        """Start it; returns when it answers.

        Its backends notice a moment after it that the postmaster was killed; until they have ended none starts again.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert time.monotonic() < deadline, self.process.end_of_log()
            if not self.process.running:
                self.process.start()
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it serves."""
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(host=self.socket, user="postgres"):
            return self.process.running
        return False


@contextlib.contextmanager
def run_postgres(log: Path) -> Iterator[Postgres]:
    """A cluster that is gone afterwards, with an empty database."""
    binaries = postgres_binaries()
    assert binaries is not None, "no PostgreSQL server is installed: `make test` installs it"
    owner = "postgres" if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="hostler-postgres-", ignore_cleanup_errors=True) as directory:
        if owner:
            shutil.chown(directory, owner, owner)
        data = f"{directory}/data"
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        command = [str(binaries / "postgres"), "-D", data, "-k", directory, *settings]
        as_owner = ["runuser", "-u", owner, "--"] if owner else []
        initdb = [str(binaries / "initdb"), "-D", data, "--no-sync", "--auth=trust", "--username=postgres"]
        subprocess.run([*as_owner, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=directory)
        postgres = Postgres(Process("postgres", command, log, user=owner), directory)
        postgres.start()
        try:
            with psycopg.connect(host=directory, user="postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
            yield postgres
        finally:
            if postgres.process.running:
                os.kill(postgres.process.pid, signal.SIGQUIT)  # its "immediate" shutdown: it takes its backends along
                postgres.process.wait()
