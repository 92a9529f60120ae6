"""The schema's revision: what the code needs, what the database has, and the way from one to the other."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from hostler.contract.errors import InvalidState
from models.database import Database, blips_as_unavailable

# Any number of our own, the same for all who migrate.
ADVISORY_LOCK = 4678253


def head() -> str:
    """The revision that this code is written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(database: Database) -> str | None:
    """The database's revision; None when it is empty.

    Raises:
        Unavailable: it does not answer.
    """
    with blips_as_unavailable(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> None:
    """Bring the schema up to date, in one transaction. Who comes second waits, and finds nothing left to do.

    Raises:
        InvalidState: the database is newer than the code.
    """
    with database.connect() as connection:
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # the first one may take its time
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        _refuse_newer(MigrationContext.configure(connection).get_current_revision())
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_revision(database: Database) -> None:
    """Nothing, if the database is what the code needs.

    Raises:
        InvalidState: it is older or newer.
    """
    found = current(database)
    if found == head():
        return
    _refuse_newer(found)
    state = f"is at revision {found}" if found else "has no tables yet"
    raise InvalidState(
        f"the database {state}, this version of Hostler needs {head()}",
        field="database.url",
        remedy="run: hostler db upgrade",
    )


def _refuse_newer(found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise InvalidState(
            f"the database is at revision {found}, which this version of Hostler does not know",
            field="database.url",
            remedy="it was upgraded by a newer version of Hostler: run that one",
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
