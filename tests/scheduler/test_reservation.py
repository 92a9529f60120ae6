"""A reservation is made where it fits, once, and given back without a trace."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlmodel import Session, func, select

from models import Allocation, Database, Host, OwedWork
from scheduler.request import SchedulingRequest
from scheduler.reservation import (
    held_host,
    make_former,
    release,
    release_former,
    release_others,
    reserve,
    restore_former,
)
from tests.rows import a_host, a_server, add


@pytest.fixture
def host(database: Database) -> Host:
    host = a_host()
    add(database, host)
    return host


def ask(database: Database, **changes: Any) -> SchedulingRequest:
    """A request for a server that exists: 1 CPU, 1 GiB of RAM, 10 GiB of disk."""
    server = a_server()
    add(database, server)
    values: dict[str, Any] = {"server_id": server.id, "vcpus": 1, "ram_mib": 1024, "disk_gib": 10}
    return SchedulingRequest(**values | changes)


def reserved(database: Database, host: Host, request: SchedulingRequest) -> bool:
    return database.run(lambda session: reserve(session, host.id, request))


def world(database: Database, host: Host) -> tuple[int, int]:
    """How many allocations the host has, and its generation."""
    with database.read() as session:
        count = session.exec(select(func.count()).where(Allocation.host_id == host.id)).one()
        return count, session.get_one(Host, host.id).generation


def test_a_reservation_is_an_allocation(database: Database, host: Host) -> None:
    request = ask(database)
    assert reserved(database, host, request)
    with database.read() as session:
        allocation = session.get_one(Allocation, (request.server_id, host.id, False))
    assert (allocation.vcpus, allocation.ram_mib, allocation.disk_gib) == (1, 1024, 10)
    assert world(database, host) == (1, 1)


def test_reserving_twice_is_reserving_once(database: Database, host: Host) -> None:
    request = ask(database, ram_mib=16384)
    assert reserved(database, host, request)
    assert reserved(database, host, request)
    assert world(database, host) == (1, 1)


@pytest.mark.parametrize("too_much", [{"vcpus": 9}, {"ram_mib": 16385}, {"disk_gib": 101}])
def test_what_does_not_fit_changes_nothing(database: Database, host: Host, too_much: dict[str, int]) -> None:
    assert not reserved(database, host, ask(database, **too_much))
    assert world(database, host) == (0, 0)


def test_the_last_bit_of_room_is_used_and_no_more(database: Database, host: Host) -> None:
    assert reserved(database, host, ask(database, ram_mib=16384 - 1024))
    assert reserved(database, host, ask(database, ram_mib=1024))
    assert not reserved(database, host, ask(database, ram_mib=1))


def test_a_server_larger_than_the_machine_is_refused_whatever_the_overcommit(database: Database) -> None:
    host = a_host(cpu_ratio=16.0)
    add(database, host)
    assert not reserved(database, host, ask(database, vcpus=9))
    assert reserved(database, host, ask(database, vcpus=8))
    assert reserved(database, host, ask(database, vcpus=8))


@pytest.mark.parametrize("reason", ["disabled", "owes"])
def test_a_host_that_became_unfit_since_it_was_chosen_is_refused(database: Database, host: Host, reason: str) -> None:
    def change(session: Session) -> None:
        if reason == "disabled":
            session.get_one(Host, host.id).enabled = False
        else:
            session.add(OwedWork(id="work", host_id=host.id, activity="destroy", argument={}, reason="it was down"))

    database.run(change)
    assert not reserved(database, host, ask(database))


def test_a_host_that_is_not_there_is_refused(database: Database) -> None:
    assert not reserved(database, a_host(), ask(database))


def test_many_at_once_never_overcommit(database: Database) -> None:
    host = a_host(ram_mib=5 * 1024)
    add(database, host)
    requests = [ask(database) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda request: reserved(database, host, request), requests))
    assert answers.count(True) == 5
    assert world(database, host) == (5, 5)


def test_release_gives_it_back(database: Database, host: Host) -> None:
    request = ask(database)
    assert reserved(database, host, request)
    database.run(lambda session: release(session, request.server_id, host.id))
    assert world(database, host) == (0, 2)


def test_releasing_nothing_changes_nothing(database: Database, host: Host) -> None:
    database.run(lambda session: release(session, "no-server", host.id))
    database.run(lambda session: release(session, "no-server"))
    assert world(database, host) == (0, 0)


def test_release_without_a_host_gives_back_all_that_this_server_has(database: Database, host: Host) -> None:
    other = a_host()
    add(database, other)
    mine, not_mine = ask(database), ask(database)
    for where, request in ((host, mine), (other, mine), (host, not_mine)):
        assert reserved(database, where, request)
    database.run(lambda session: release(session, mine.server_id))
    assert world(database, host)[0] == 1
    assert world(database, other)[0] == 0


def test_a_host_to_be_left_is_not_the_one_held(database: Database, host: Host) -> None:
    request = ask(database)
    assert reserved(database, host, request)
    leaving = SchedulingRequest(request.server_id, 1, 1024, 10, excluded=frozenset({host.id}))
    with database.read() as session:
        assert held_host(session, request) == host.id
        assert held_host(session, leaving) is None


# A server that moves.


def held(database: Database, request: SchedulingRequest) -> set[tuple[str, bool, int]]:
    """The server's allocations: the host, whether it is a former one, its memory."""
    with database.read() as session:
        query = select(Allocation).where(Allocation.server_id == request.server_id)
        return {(one.host_id, one.former, one.ram_mib) for one in session.exec(query)}


@pytest.fixture
def other(database: Database) -> Host:
    host = a_host()
    add(database, host)
    return host


@pytest.fixture
def moving(database: Database, host: Host) -> SchedulingRequest:
    """A server that keeps what it has on the host as its former allocation."""
    request = ask(database)
    assert reserved(database, host, request)
    database.run(lambda session: make_former(session, request.server_id))
    return request


def test_a_former_allocation_still_takes_its_room(database: Database, host: Host, moving: SchedulingRequest) -> None:
    assert held(database, moving) == {(host.id, True, 1024)}
    assert not reserved(database, host, ask(database, ram_mib=16384))
    assert world(database, host) == (1, 2)


def test_a_server_that_moves_is_not_held_by_its_former_host(database: Database, moving: SchedulingRequest) -> None:
    with database.read() as session:
        assert held_host(session, moving) is None


def test_it_may_reserve_elsewhere_and_on_the_same_host(
    database: Database, host: Host, other: Host, moving: SchedulingRequest
) -> None:
    larger = SchedulingRequest(moving.server_id, 2, 2048, 10)
    assert reserved(database, other, larger)
    assert reserved(database, host, larger)
    assert held(database, moving) == {(host.id, True, 1024), (host.id, False, 2048), (other.id, False, 2048)}


def test_on_the_same_host_it_must_fit_beside_its_former_self(
    database: Database, host: Host, moving: SchedulingRequest
) -> None:
    assert not reserved(database, host, SchedulingRequest(moving.server_id, 1, 16384, 10))
    assert reserved(database, host, SchedulingRequest(moving.server_id, 1, 16384 - 1024, 10))


@pytest.mark.parametrize("same", [False, True])
def test_restored_it_has_what_it_had_and_nothing_else(
    database: Database, host: Host, other: Host, moving: SchedulingRequest, same: bool
) -> None:
    target = host if same else other
    assert reserved(database, target, SchedulingRequest(moving.server_id, 2, 2048, 10))
    for _ in range(2):
        database.run(lambda session: restore_former(session, moving.server_id))
    assert held(database, moving) == {(host.id, False, 1024)}


@pytest.mark.parametrize("same", [False, True])
def test_with_its_former_allocation_released_it_has_what_it_has_now(
    database: Database, host: Host, other: Host, moving: SchedulingRequest, same: bool
) -> None:
    target = host if same else other
    assert reserved(database, target, SchedulingRequest(moving.server_id, 2, 2048, 10))
    for _ in range(2):
        database.run(lambda session: release_former(session, moving.server_id))
    assert held(database, moving) == {(target.id, False, 2048)}
    assert reserved(database, host, ask(database, ram_mib=16384 - (2048 if same else 0)))


def test_what_gives_back_the_others_or_all_leaves_the_former_one(
    database: Database, host: Host, other: Host, moving: SchedulingRequest
) -> None:
    for target in (host, other):
        assert reserved(database, target, moving)
    database.run(lambda session: release_others(session, moving.server_id, other.id))
    assert held(database, moving) == {(host.id, True, 1024), (other.id, False, 1024)}
    database.run(lambda session: release(session, moving.server_id))
    assert held(database, moving) == {(host.id, True, 1024)}


def test_a_server_that_did_not_move_keeps_what_it_has(database: Database, host: Host) -> None:
    request = ask(database)
    assert reserved(database, host, request)
    database.run(lambda session: restore_former(session, request.server_id))
    database.run(lambda session: release_former(session, request.server_id))
    assert held(database, request) == {(host.id, False, 1024)}
    assert world(database, host) == (1, 1)


def test_another_servers_former_allocation_is_not_touched(
    database: Database, host: Host, moving: SchedulingRequest
) -> None:
    request = ask(database)
    assert reserved(database, host, request)
    database.run(lambda session: make_former(session, request.server_id))
    database.run(lambda session: restore_former(session, request.server_id))
    database.run(lambda session: release_former(session, request.server_id))
    assert held(database, moving) == {(host.id, True, 1024)}
