"""Work on all servers of a host: which volumes a host that is drained keeps, and when that is told."""

from typing import Any

import pytest

from activities.control.host_work import HostWork
from activities.interfaces.host_work import NextMove
from hostler.contract.host_work import DrainRequest, KeptVolume
from hostler.contract.resources import VolumeStatus
from hostler.contract.states import VmState
from hostler.settings import Settings
from models import Database, Host, Server, Volume, now
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add


@pytest.fixture
def hosts(database: Database) -> list[str]:
    """Two hosts' UUIDs; the first is the one that is drained."""
    rows = [a_host(name="drained", enabled=False), a_host(name="other")]
    ids = [row.id for row in rows]
    add(database, *rows)
    return ids


@pytest.fixture
def work(database: Database, hosts: list[str]) -> HostWork:
    return HostWork(database, lambda: frozenset(hosts), Settings())


def put(database: Database, host_id: str | None, **changes: Any) -> str:
    """A server on the host, and its UUID."""
    server_id = uuid()
    add(database, a_server(id=server_id, host_id=host_id, vm_state=VmState.ACTIVE, **changes))
    return server_id


def keep(database: Database, host_id: str, server_id: str | None = None, **changes: Any) -> str:
    """A volume that the host keeps, and its UUID."""
    volume_id = uuid()
    status = VolumeStatus.IN_USE if server_id else VolumeStatus.AVAILABLE
    add(
        database,
        Volume(id=volume_id, size_gib=1, host_id=host_id, server_id=server_id, **{"status": status, **changes}),
    )
    return volume_id


def planned(work: HostWork, host_id: str) -> list[KeptVolume]:
    return work.plan_drain(DrainRequest(host_id=host_id, request_id=uuid())).volumes


def last_look(work: HostWork, host_id: str, server_id: str, **changes: Any) -> list[str] | None:
    """The servers whose volumes the host is said to keep, when the server is looked at."""
    volumes = work.next_move(NextMove(host_id=host_id, server_id=server_id, **changes)).volumes
    return None if volumes is None else [one.server for one in volumes]


def test_a_drain_is_told_of_the_volumes_that_servers_use_wherever_these_are(
    work: HostWork, database: Database, hosts: list[str]
) -> None:
    drained, other = hosts
    there, elsewhere = put(database, drained, name="a"), put(database, other, name="b", project="theirs")
    first, second = keep(database, drained, there, name="root"), keep(database, drained, elsewhere)

    kept = {"volume_id": first, "name": "root", "server_id": there, "server": "a", "project": "default"}
    also = {"volume_id": second, "name": "", "server_id": elsewhere, "server": "b", "project": "theirs"}
    assert [one.model_dump() for one in planned(work, drained)] == [kept, also]


def test_a_volume_that_is_only_reserved_counts(work: HostWork, database: Database, hosts: list[str]) -> None:
    keep(database, hosts[0], put(database, hosts[1]), status=VolumeStatus.RESERVED)
    assert len(planned(work, hosts[0])) == 1


def test_volumes_of_nobody_of_deleted_servers_and_of_other_hosts_do_not(
    work: HostWork, database: Database, hosts: list[str]
) -> None:
    drained, other = hosts
    keep(database, drained)
    keep(database, drained, put(database, None, deleted_at=now()))
    keep(database, other, put(database, drained))
    assert planned(work, drained) == []


def test_they_are_told_again_when_the_last_server_has_left(
    work: HostWork, database: Database, hosts: list[str]
) -> None:
    drained, other = hosts
    first, last = put(database, drained), put(database, drained)
    keep(database, drained, put(database, other, name="elsewhere"))

    def moves(server_id: str) -> None:
        with database.write() as session:
            session.get_one(Server, server_id).host_id = other

    assert last_look(work, drained, first) is None
    moves(first)
    assert last_look(work, drained, first) is None
    moves(last)
    assert last_look(work, drained, last) == ["elsewhere"]


def test_they_are_told_when_the_last_server_was_deleted(work: HostWork, database: Database, hosts: list[str]) -> None:
    keep(database, hosts[0], put(database, hosts[1], name="elsewhere"))
    assert last_look(work, hosts[0], put(database, None, deleted_at=now())) == ["elsewhere"]


def test_a_host_that_failed_serves_no_volumes_to_tell_of(work: HostWork, database: Database, hosts: list[str]) -> None:
    drained, other = hosts
    with database.write() as session:
        session.get_one(Host, drained).down_since = now()
    server = put(database, other)
    keep(database, drained, server)
    assert last_look(work, drained, server, evacuation=True) is None
