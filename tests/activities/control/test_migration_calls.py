"""Calls about moves: which are listed, in what order, and what each line knows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.control.calls.migrations import MigrationCalls
from hostler.contract.calls import MAX_MIGRATIONS, MigrationFilter
from hostler.contract.errors import Conflict, HostlerError, InvalidRequest, NotFound
from hostler.contract.servers import MigrationKind, MigrationStatus, ServerMigration
from hostler.contract.states import VmState
from models import Database, Host, Server
from tests.activities.control.test_guest_plans import SMALL
from tests.activities.control.test_migrations import a_migration
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add

NIGHT = datetime(2026, 7, 1, 2, 30, tzinfo=UTC)
HOSTS = [a_host(name=f"compute-{number}") for number in (1, 2, 3)]
WEB, DB, THEIRS, GONE = (
    a_server(name="web", host_id=HOSTS[0].id),
    a_server(name="db", host_id=HOSTS[1].id),
    a_server(name="theirs", project="theirs", host_id=HOSTS[0].id),
    a_server(name="web", host_id=HOSTS[2].id, vm_state=VmState.DELETED, deleted_at=NIGHT),
)
RUNS = [f"{number}0000000-0000-4000-8000-000000000000" for number in range(5)]


def a_move(server: Server, number: int, status: MigrationStatus, to: Host | None = None, **changes: Any) -> Any:
    """The move `RUNS[number]`, which began so many minutes into the night, and ended half a minute later."""
    began = NIGHT + timedelta(minutes=number)
    values = {"created_at": began, "updated_at": began + timedelta(seconds=30), "target_id": to.id if to else None}
    move = a_migration(server, status, RUNS[number], **values)
    for name, value in changes.items():
        setattr(move, name, value)
    return move


@pytest.fixture
def calls(database: Database) -> MigrationCalls:
    """Of a cloud with a night behind it."""
    for rows in (HOSTS, (WEB, DB, THEIRS, GONE)):
        add(database, *(type(row).model_validate(row.model_dump()) for row in rows))
    live, off = MigrationKind.LIVE_MIGRATION, MigrationKind.EVACUATION
    add(
        database,
        a_move(WEB, 0, MigrationStatus.FINISHED, HOSTS[1], new_flavor=SMALL.model_dump() | {"name": "large"}),
        a_move(DB, 1, MigrationStatus.ERROR, HOSTS[0], kind=live),
        a_move(THEIRS, 2, MigrationStatus.MIGRATING, kind=live),
        a_move(GONE, 3, MigrationStatus.COMPLETED, HOSTS[1], kind=off),
        a_move(WEB, 4, MigrationStatus.ERROR, created_at=NIGHT + timedelta(minutes=3)),
    )
    return MigrationCalls(database)


def listed(calls: MigrationCalls, **wanted: Any) -> list[int]:
    """The numbers of the moves that are listed."""
    return [RUNS.index(move.id) for move in calls.list_migrations(MigrationFilter(**wanted))]


def test_a_move_is_listed_with_all_that_is_known_of_it(calls: MigrationCalls) -> None:
    failed_at_once, of_a_deleted, failed, waits = calls.list_migrations(MigrationFilter())

    assert waits == ServerMigration(
        id=RUNS[0],
        kind=MigrationKind.RESIZE,
        status=MigrationStatus.FINISHED,
        source="compute-1",
        target="compute-2",
        old_flavor="small",
        new_flavor="large",
        created_at=NIGHT,
        server_id=WEB.id,
        server_name="web",
        project="default",
        ended_at=None,
    )
    assert (failed.source, failed.target, failed.status) == ("compute-2", "compute-1", MigrationStatus.ERROR)
    assert failed.ended_at == NIGHT + timedelta(minutes=1, seconds=30)
    assert (of_a_deleted.server_id, of_a_deleted.status) == (GONE.id, MigrationStatus.COMPLETED)
    assert failed_at_once.target is None


def test_the_latest_come_first_and_those_of_other_projects_when_they_are_asked_for(calls: MigrationCalls) -> None:
    assert listed(calls) == [4, 3, 1, 0]
    assert listed(calls, all_projects=True) == [4, 3, 2, 1, 0]
    assert listed(calls, project="theirs") == [2]


def test_each_filter_lets_through_what_it_names_and_two_what_both_do(calls: MigrationCalls) -> None:
    for wanted, found in (
        ({"host": "compute-1"}, [4, 1, 0]),  # what left it, and what was to come
        ({"host": HOSTS[2].id}, [3]),
        ({"host": "compute-2", "all_projects": True}, [3, 1, 0]),
        ({"server": "web"}, [4, 0]),  # the one that is there
        ({"server": DB.id.upper()}, [1]),
        ({"server": GONE.id}, [3]),
        ({"server": "theirs", "all_projects": True}, [2]),
        ({"server": THEIRS.id, "all_projects": True}, [2]),
        ({"kind": "live-migration"}, [1]),
        ({"status": "error"}, [4, 1]),
        ({"status": "error", "host": "compute-1", "kind": "resize"}, [4]),
        ({"status": "reverted"}, []),
    ):
        assert listed(calls, **wanted) == found, wanted


def test_a_long_list_is_read_in_parts_without_a_gap_or_a_repetition(calls: MigrationCalls) -> None:
    assert listed(calls, limit=1) == [4]
    assert listed(calls, limit=2, after=RUNS[4]) == [3, 1]  # 4 and 3 began in the same moment
    assert listed(calls, limit=2, after=RUNS[1]) == [0]
    assert listed(calls, after=RUNS[0]) == []
    assert listed(calls, status="error", after=RUNS[4]) == [1]


def refusal(calls: MigrationCalls, **wanted: Any) -> HostlerError:
    with pytest.raises(HostlerError) as caught:
        calls.list_migrations(MigrationFilter(**wanted))
    return caught.value


def test_what_is_not_there_is_refused_with_where_to_look(calls: MigrationCalls, database: Database) -> None:
    add(database, a_server(name="db"))
    for wanted, kind, field in (
        ({"host": "compute-9"}, NotFound, "host"),
        ({"server": "mail"}, NotFound, "server"),
        ({"server": "mail", "all_projects": True}, NotFound, "server"),
        ({"server": THEIRS.id}, NotFound, "server"),
        ({"server": "db"}, Conflict, "server"),
        ({"limit": 0}, InvalidRequest, "limit"),
        ({"limit": MAX_MIGRATIONS + 1}, InvalidRequest, "limit"),
        ({"after": uuid()}, NotFound, "after"),
    ):
        error = refusal(calls, **wanted)
        assert (type(error), error.detail.field) == (kind, field), wanted
        assert error.detail.value == str(wanted[field])
        assert error.remedy
