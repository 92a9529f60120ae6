"""The migrations make exactly the tables that the code declares, once, whoever asks and how often."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from hostler.contract.errors import InvalidState
from models import Database, Table, check_revision, current, head, upgrade


def set_revision(database: Database, revision: str) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})


def test_the_migrated_schema_is_the_declared_one(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_upgrading_twice_is_upgrading_once(database: Database) -> None:
    upgrade(database)
    assert current(database) == head()


def test_two_that_upgrade_at_once_do_not_meet(database_url: str) -> None:
    together = threading.Barrier(4)

    def one() -> str | None:
        database = Database(database_url)
        together.wait()
        upgrade(database)
        found = current(database)
        database.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(one) for _ in range(4)]
    assert [result.result() for result in results] == [head()] * 4


def test_an_upgrade_that_fails_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("power cut")

    database = Database(database_url)
    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            upgrade(database)
    assert current(database) is None
    upgrade(database)
    check_revision(database)
    database.close()


def test_an_empty_database_is_refused_with_the_remedy(database_url: str) -> None:
    with pytest.raises(InvalidState, match="no tables yet") as refusal:
        check_revision(Database(database_url))
    assert refusal.value.remedy == "run: hostler db upgrade"


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database) -> None:
    set_revision(database, "9999")
    with pytest.raises(InvalidState, match="9999, which this version of Hostler does not know"):
        check_revision(database)
    with pytest.raises(InvalidState, match="9999"):
        upgrade(database)
    assert current(database) == "9999"
