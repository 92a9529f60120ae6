"""Migrations: which move is open, and how one that got nowhere is taken back."""

from typing import Any

import pytest
from sqlmodel import select

from activities.control.migrations import abandon_move, end_migrations, open_migration, open_move
from hostler.contract.servers import MigrationKind, MigrationStatus
from hostler.contract.states import PowerState, VmState
from models import Allocation, Database, Migration, Server
from tests.activities.control.test_guest_plans import SMALL, a_host_with_a_server
from tests.activities.given import uuid
from tests.rows import add

RUN, OTHER_RUN = uuid(), uuid()


@pytest.fixture
def server(database: Database) -> Server:
    """A server that its own run moves: it counts as the larger flavor, and has a former allocation."""
    server = a_host_with_a_server(database, vcpus=4, ram_mib=4096)
    host_id = str(server.host_id)
    add(database, Allocation(server_id=server.id, host_id=host_id, former=True, vcpus=1, ram_mib=128, disk_gib=1))
    return server


def a_migration(server: Server, status: MigrationStatus, run_id: str = RUN, **changes: Any) -> Migration:
    return Migration(
        id=run_id,
        server_id=server.id,
        kind=MigrationKind.RESIZE,
        status=status,
        source_id=str(server.host_id),
        old_flavor=SMALL.model_dump(),
        new_flavor=SMALL.model_dump(),
        former_vm_state=VmState.STOPPED,
        former_power_state=PowerState.SHUTDOWN,
        **changes,
    )


def former(database: Database) -> list[bool]:
    with database.read() as session:
        return [one.former for one in session.exec(select(Allocation))]


def status(database: Database, run_id: str = RUN) -> MigrationStatus:
    with database.read() as session:
        return session.get_one(Migration, run_id).status


@pytest.mark.parametrize("state", MigrationStatus)
def test_a_move_is_open_until_it_is_decided_on(database: Database, server: Server, state: MigrationStatus) -> None:
    add(database, a_migration(server, state))

    with database.read() as session:
        found = open_move(session, server.id)

    if state not in (MigrationStatus.MIGRATING, MigrationStatus.FINISHED):
        assert found is None
        return
    assert found is not None
    assert (found.source.id, found.former, found.finished) == (
        server.host_id,
        VmState.STOPPED,
        state is MigrationStatus.FINISHED,
    )


def test_what_a_run_did_is_taken_back_once(database: Database, server: Server) -> None:
    add(database, a_migration(server, MigrationStatus.MIGRATING))

    for _ in range(2):
        database.run(lambda session: abandon_move(session, session.get_one(Server, server.id), RUN))

    assert (former(database), status(database)) == ([False], MigrationStatus.ERROR)
    with database.read() as session:
        row = session.get_one(Server, server.id)
        assert (row.vcpus, row.ram_mib) == (SMALL.vcpus, SMALL.ram_mib)


@pytest.mark.parametrize(
    ("state", "run"), [(MigrationStatus.FINISHED, RUN), (MigrationStatus.MIGRATING, OTHER_RUN)], ids=["done", "others"]
)
def test_a_move_that_is_done_or_another_runs_is_not_taken_back(
    database: Database, server: Server, state: MigrationStatus, run: str
) -> None:
    add(database, a_migration(server, state))

    database.run(lambda session: abandon_move(session, session.get_one(Server, server.id), run))

    assert (former(database), status(database)) == ([True], state)


def test_with_its_server_every_open_move_ends_and_those_that_were_over_stay(database: Database, server: Server) -> None:
    add(
        database,
        a_migration(server, MigrationStatus.FINISHED),
        a_migration(server, MigrationStatus.REVERTED, OTHER_RUN),
    )

    database.run(lambda session: end_migrations(session, server.id, MigrationStatus.ERROR))

    assert (status(database), status(database, OTHER_RUN)) == (MigrationStatus.ERROR, MigrationStatus.REVERTED)
    with database.read() as session:
        assert open_migration(session, server.id) is None
