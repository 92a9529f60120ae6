"""Live migrations: what settings and request say of a move, as the source host is told."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from activities.control.live_migrations import LiveMigrations
from activities.interfaces.live_migrations import BeginLiveMigration
from hostler.contract.guests import DiskKind, MigrationLimits
from hostler.contract.servers import OperationName, TimeoutAction
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.settings import LiveMigrationSettings, Settings
from models import BlockDevice, Database, Server
from tests.activities.control.test_guest_plans import GIB, SMALL, a_device, a_host_with_a_server
from tests.activities.given import uuid
from tests.rows import add

MINUTE = timedelta(minutes=1)


@pytest.fixture
def server(database: Database) -> Server:
    """A server of 128 MiB of memory and a disk of 1 GiB."""
    return a_host_with_a_server(database, power_state=PowerState.RUNNING)


def limits(database: Database, server: Server, *, asked: dict[str, Any] | None = None, **say: Any) -> MigrationLimits:
    """What a migration is told that was `asked` for so, where the settings `say` so."""
    settings = Settings(live_migration=LiveMigrationSettings(**say))
    call = BeginLiveMigration(
        server_id=server.id,
        project=server.project,
        run_id=uuid(),
        operation=OperationName.LIVE_MIGRATE,
        allowed=[VmState.ACTIVE],
        task_state=TaskState.MIGRATING,
        **asked or {},
    )
    return LiveMigrations(database, settings).begin_live_migration(call).migration


def test_where_nothing_is_said_the_settings_defaults_hold(database: Database, server: Server) -> None:
    assert limits(database, server) == MigrationLimits(
        downtime=timedelta(milliseconds=500), bandwidth_mib=0, completion_timeout=2 * timedelta(seconds=800)
    )


@pytest.mark.parametrize(
    ("say", "told"),
    [
        ({"downtime": timedelta(seconds=2)}, {"downtime": timedelta(seconds=2)}),
        ({"bandwidth_mib": 100}, {"bandwidth_mib": 100}),
        ({"completion_timeout": timedelta(0)}, {"completion_timeout": timedelta(0)}),
        ({"timeout_action": "force-complete"}, {"force_complete": True}),
        ({"auto_converge": True}, {"auto_converge": True}),
        ({"post_copy": True}, {"post_copy": True}),
    ],
    ids=lambda one: next(iter(one)),
)
def test_each_setting_reaches_the_limits_and_only_its_own(
    database: Database, server: Server, say: dict[str, Any], told: dict[str, Any]
) -> None:
    others = {"completion_timeout": 2 * timedelta(seconds=800)}
    assert limits(database, server, **say) == MigrationLimits(**others | told)


@pytest.mark.parametrize(
    ("ram_mib", "more_disk_gib", "gib"),
    [
        pytest.param(128, 0, 2, id="memory counts as whole GiB"),
        pytest.param(1025, 0, 3, id="so it does beyond the first"),
        pytest.param(128, 5, 7, id="each local disk counts"),
    ],
)
def test_the_time_grows_with_memory_and_local_disks(
    database: Database, ram_mib: int, more_disk_gib: int, gib: int
) -> None:
    server = a_host_with_a_server(database, flavor=SMALL.model_copy(update={"ram_mib": ram_mib}).model_dump())
    if more_disk_gib:
        add(database, a_device(server.id, DiskKind.EPHEMERAL, 1, size_bytes=more_disk_gib * GIB))
    assert limits(database, server, completion_timeout=MINUTE).completion_timeout == gib * MINUTE


def test_a_guest_without_local_disks_gets_the_time_of_two_gib_all_the_same(database: Database, server: Server) -> None:
    with database.write() as session:
        session.delete(session.exec(select(BlockDevice)).one())
    assert limits(database, server, completion_timeout=MINUTE).completion_timeout == 2 * MINUTE


@pytest.mark.parametrize("asked", [timedelta(seconds=7), timedelta(0)])
def test_the_request_s_time_goes_over_the_settings_and_is_that_of_the_whole(
    database: Database, server: Server, asked: timedelta
) -> None:
    found = limits(database, server, asked={"completion_timeout": asked}, completion_timeout=MINUTE)
    assert found.completion_timeout == asked


@pytest.mark.parametrize(("asked", "setting"), [("abort", "force-complete"), ("force-complete", "abort")])
def test_the_request_s_action_goes_over_the_settings(
    database: Database, server: Server, asked: str, setting: str
) -> None:
    found = limits(database, server, asked={"timeout_action": TimeoutAction(asked)}, timeout_action=setting)
    assert found.force_complete is (asked == "force-complete")
