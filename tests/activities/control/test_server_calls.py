"""Calls about servers: their metadata are changed at any time, key by key, within the limits of a boot."""

import pytest

from activities.control.calls.servers import ServerCalls
from hostler.contract.calls import ServerMetadata
from hostler.contract.errors import HostlerError, InvalidRequest, NotFound
from hostler.contract.states import TaskState, VmState
from models import Database, Server, now
from tests.activities.given import uuid
from tests.rows import a_server, add

RUN = uuid()


@pytest.fixture
def calls(database: Database) -> ServerCalls:
    return ServerCalls(database)


def entered(database: Database, **values: object) -> Server:
    server = a_server(**{"vm_state": VmState.ACTIVE, "metadata_": {"role": "db", "rack": "7"}, **values})
    add(database, server)
    return server


def row(database: Database, server: Server) -> Server:
    with database.read() as session:
        return session.get_one(Server, server.id)


def change(server: Server, **changes: str | None) -> ServerMetadata:
    return ServerMetadata(ref=server.id, metadata=changes)


def test_what_is_given_is_set_or_taken_away_and_the_rest_stays(calls: ServerCalls, database: Database) -> None:
    server = entered(database)
    call = change(server, role="web", rack=None, tier="1", nothing=None)

    assert calls.set_server(call).metadata == {"role": "web", "tier": "1"}
    assert calls.set_server(call).metadata == {"role": "web", "tier": "1"}  # its answer may have been lost

    assert row(database, server).metadata_ == {"role": "web", "tier": "1"}
    assert calls.set_server(ServerMetadata(ref="server", metadata={"tier": None})).metadata == {"role": "web"}


@pytest.mark.parametrize("vm_state", [state for state in VmState if state is not VmState.DELETED])
def test_it_is_done_in_any_state_also_while_an_operation_has_the_server(
    calls: ServerCalls, database: Database, vm_state: VmState
) -> None:
    server = entered(database, vm_state=vm_state, operation_id=RUN, task_state=TaskState.REBUILDING)

    assert calls.set_server(change(server, role="web")).metadata["role"] == "web"

    after = row(database, server)
    assert (after.vm_state, after.operation_id, after.task_state) == (vm_state, RUN, TaskState.REBUILDING)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"": "v"}, "metadata"),
        ({"a/b": "v"}, "metadata"),
        ({"k" * 256: "v"}, "metadata"),
        ({"k": "v" * 256}, "metadata[k]"),
        ({f"k{n}": "" for n in range(127)}, "metadata"),
        ({"hostler:evacuate": "perhaps"}, "metadata[hostler:evacuate]"),
        ({"hostler:evacuation_priority": "high"}, "metadata[hostler:evacuation_priority]"),
    ],
    ids=["empty key", "bad key", "long key", "long value", "too many", "evacuate", "priority"],
)
def test_what_a_boot_would_refuse_is_refused(
    calls: ServerCalls, database: Database, metadata: dict[str, str | None], field: str
) -> None:
    server = entered(database)
    with pytest.raises(InvalidRequest) as refusal:
        calls.set_server(ServerMetadata(ref=server.id, metadata=metadata))
    assert refusal.value.detail.field == field
    assert refusal.value.remedy
    assert row(database, server) == server


def test_what_it_has_from_before_is_not_held_against_a_change(calls: ServerCalls, database: Database) -> None:
    server = entered(database, metadata_={"hostler:evacuation_priority": "high"})
    changed = calls.set_server(ServerMetadata(ref=server.id, metadata={"role": "web"}))
    assert changed.metadata == {"hostler:evacuation_priority": "high", "role": "web"}


def refusal(calls: ServerCalls, call: ServerMetadata) -> HostlerError:
    with pytest.raises(NotFound) as caught:
        calls.set_server(call)
    return caught.value


def test_a_server_that_is_deleted_anothers_or_nobodys_is_not_found(calls: ServerCalls, database: Database) -> None:
    deleted = entered(database, vm_state=VmState.DELETED, deleted_at=now())
    theirs = entered(database, project="theirs")
    for ref in (deleted.id, theirs.id, uuid(), "nothing"):
        error = refusal(calls, ServerMetadata(ref=ref, metadata={"role": "web"}))
        assert (error.detail.field, error.detail.value) == ("server", ref)
        assert error.remedy
    assert row(database, deleted).metadata_ == row(database, theirs).metadata_ == {"role": "db", "rack": "7"}
