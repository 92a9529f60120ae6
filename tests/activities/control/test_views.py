"""Servers as clients see them: the move that one is shown with."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col, update

from activities.control.calls.servers import ServerCalls
from activities.control.evacuations import Evacuations
from activities.control.live_migrations import LiveMigrations
from activities.interfaces.evacuations import BeginEvacuation
from activities.interfaces.live_migrations import BeginLiveMigration, FinishLiveMigration
from hostler.contract.calls import Ref
from hostler.contract.servers import Migration, MigrationKind, MigrationStatus, OperationName
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.settings import Settings
from models import Allocation, Database, Host, Server, now
from tests.activities.control.test_evacuations import NOBODY
from tests.activities.control.test_guest_plans import a_host_with_a_server
from tests.activities.control.test_migrations import a_migration
from tests.activities.given import log, uuid
from tests.rows import a_host, add

RUN = uuid()
TARGET, OTHER = a_host(name="target"), a_host(name="other")


@pytest.fixture
def server(database: Database) -> Server:
    """A server that runs on the host "host", and two more hosts."""
    server = a_host_with_a_server(database, power_state=PowerState.RUNNING)
    add(database, *(Host.model_validate(host.model_dump()) for host in (TARGET, OTHER)))
    add(database, an_allocation(server, str(server.host_id)))
    return server


def an_allocation(server: Server, host_id: str, created_at: datetime | None = None) -> Allocation:
    values: dict[str, Any] = {"vcpus": 1, "ram_mib": 128, "disk_gib": 1, "created_at": created_at or now()}
    return Allocation(server_id=server.id, host_id=host_id, **values)


def live_migrates(database: Database, server: Server) -> None:
    call = BeginLiveMigration(
        server_id=server.id,
        project=server.project,
        run_id=RUN,
        operation=OperationName.LIVE_MIGRATE,
        allowed=[VmState.ACTIVE],
        task_state=TaskState.MIGRATING,
    )
    LiveMigrations(database, Settings()).begin_live_migration(call)


def shown(database: Database, server: Server) -> Migration | None:
    return ServerCalls(database).show_server(Ref(ref=server.id, project=server.project)).migration


def way(database: Database, server: Server) -> tuple[str, str | None]:
    migration = shown(database, server)
    assert migration is not None
    return migration.source, migration.target


def write(database: Database, server: Server, **values: object) -> None:
    with database.write() as session:
        session.exec(update(Server).where(col(Server.id) == server.id).values(**values))


def test_a_live_migration_under_way_is_shown_with_the_host_that_it_tries_now(
    database: Database, server: Server
) -> None:
    assert shown(database, server) is None
    live_migrates(database, server)

    migration = shown(database, server)
    assert migration is not None
    assert (migration.id, migration.kind, migration.status) == (
        RUN,
        MigrationKind.LIVE_MIGRATION,
        MigrationStatus.MIGRATING,
    )
    assert (migration.source, migration.target) == ("host", None)

    add(database, an_allocation(server, TARGET.id))
    assert way(database, server) == ("host", "target")
    add(database, an_allocation(server, OTHER.id, now() + timedelta(minutes=1)))  # "target" fell silent
    assert way(database, server) == ("host", "other")


def test_a_move_on_its_own_host_goes_from_there_to_there(database: Database, server: Server) -> None:
    live_migrates(database, server)
    add(database, an_allocation(server, str(server.host_id)))
    assert way(database, server) == ("host", "host")


async def test_an_evacuation_under_way_is_shown_too(database: Database, server: Server) -> None:
    with database.write() as session:
        session.get_one(Host, server.host_id).down_since = now()
    call = BeginEvacuation(
        server_id=server.id,
        project=server.project,
        run_id=RUN,
        operation=OperationName.EVACUATE,
        allowed=[VmState.ACTIVE],
        task_state=TaskState.REBUILDING,
    )
    await Evacuations(database, Settings(), frozenset, NOBODY).begin_evacuation(call)
    add(database, an_allocation(server, TARGET.id))

    migration = shown(database, server)

    assert migration is not None
    assert (migration.kind, migration.target) == (MigrationKind.EVACUATION, "target")


def test_what_is_over_is_shown_no_longer(database: Database, server: Server) -> None:
    live_migrates(database, server)
    call = FinishLiveMigration(
        server_id=server.id,
        run_id=RUN,
        host_id=TARGET.id,
        power_state=PowerState.RUNNING,
        events=log(server.id, RUN, "finish_live_migration"),
    )
    assert LiveMigrations(database, Settings()).finish_live_migration(call).migration is None
    assert shown(database, server) is None


def test_another_operation_is_not_shown_with_a_move_that_is_not_its_own(database: Database, server: Server) -> None:
    live_migrates(database, server)
    write(database, server, operation_id=uuid(), task_state=TaskState.DELETING)
    assert shown(database, server) is None


def test_one_that_waits_is_shown_with_where_it_went_whatever_is_reserved(database: Database, server: Server) -> None:
    write(database, server, vm_state=VmState.RESIZED)
    add(database, a_migration(server, MigrationStatus.FINISHED, target_id=TARGET.id), an_allocation(server, OTHER.id))
    assert way(database, server) == ("host", "target")
