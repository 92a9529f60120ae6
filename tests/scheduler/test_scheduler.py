"""Scheduling: a host is found if there is one, whoever else is looking, and if there is none the reason is told."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import Session, col, func, select

from hostler.contract.errors import NoValidHost
from hostler.contract.servers import MigrationKind
from hostler.contract.states import PowerState, VmState
from hostler.settings import SchedulerSettings
from models import Allocation, Database, Host, Migration, bump_generation
from scheduler import Placement, Scheduler, SchedulingRequest, release
from tests.rows import a_host, a_server, add

Make = Callable[..., Scheduler]


@pytest.fixture
def hosts(database: Database) -> list[Host]:
    """Three of them, `h2` with the most memory."""
    hosts = [a_host(name=f"h{number}", ram_mib=(number + 1) * 4096) for number in range(3)]
    add(database, *hosts)
    return hosts


@pytest.fixture
def make(database: Database) -> Make:
    """Makes a scheduler to which all hosts are alive, or those given."""

    def scheduler(alive: frozenset[str] | None = None, **settings: Any) -> Scheduler:
        if alive is None:
            with database.read() as session:
                alive = frozenset(session.exec(select(Host.id)).all())
        settings = {"spread": 1, "alternates": 2} | settings
        return Scheduler(database, lambda: alive, SchedulerSettings(**settings), random.Random(0))

    return scheduler


def ask(database: Database, **changes: Any) -> SchedulingRequest:
    server = a_server()
    add(database, server)
    values: dict[str, Any] = {"server_id": server.id, "vcpus": 1, "ram_mib": 1024, "disk_gib": 1}
    return SchedulingRequest(**values | changes)


def allocations(database: Database) -> dict[str, int]:
    """How many allocations each host has, by name."""
    with database.read() as session:
        rows = session.exec(
            select(Host.name, func.count())
            .join(Allocation, col(Allocation.host_id) == Host.id)
            .group_by(col(Host.name))
        )
        return dict(rows.all())


def fill(database: Database, host: Host) -> None:
    """Take the host's memory behind the scheduler's back, as another control worker would."""
    server = a_server()
    add(database, server)

    def work(session: Session) -> None:
        bump_generation(session, host.id)
        session.add(Allocation(server_id=server.id, host_id=host.id, vcpus=0, ram_mib=host.ram_mib, disk_gib=0))

    database.run(work)


def test_the_best_host_is_reserved_and_the_others_are_alternates(
    database: Database, hosts: list[Host], make: Make
) -> None:
    placement = make().schedule(ask(database))
    assert placement == Placement(hosts[2].id, "h2", [(hosts[1].id, "h1"), (hosts[0].id, "h0")])
    assert allocations(database) == {"h2": 1}


def test_what_was_reserved_counts_at_once(database: Database, hosts: list[Host], make: Make) -> None:
    scheduler = make()
    names = [scheduler.schedule(ask(database, ram_mib=6000)).host_name for _ in range(3)]
    assert names == ["h2", "h1", "h2"]


def test_a_repeated_request_gets_the_same_host_and_no_second_allocation(
    database: Database, hosts: list[Host], make: Make
) -> None:
    request = ask(database, ram_mib=12288)  # after which it would fit nowhere
    first = make().schedule(request)
    again = make().schedule(request)
    assert (again.host_id, again.host_name) == (first.host_id, "h2")
    assert allocations(database) == {"h2": 1}


def test_the_same_request_twice_at_once_reserves_once(database: Database, hosts: list[Host], make: Make) -> None:
    for _ in range(5):
        request = ask(database)
        with ThreadPoolExecutor(4) as pool:
            placements = list(pool.map(lambda request: make(spread=3).schedule(request), [request] * 4))
        assert len({placement.host_id for placement in placements}) == 1
        with database.read() as session:
            held = select(func.count()).where(Allocation.server_id == request.server_id)
            assert session.exec(held).one() == 1


def test_after_a_host_failed_another_one_is_taken(database: Database, hosts: list[Host], make: Make) -> None:
    scheduler, request = make(), ask(database)
    failed = scheduler.schedule(request).host_id
    database.run(lambda session: release(session, request.server_id, failed))
    again = SchedulingRequest(request.server_id, 1, 1024, 1, excluded=frozenset({failed}))
    assert scheduler.schedule(again).host_name == "h1"


def test_a_server_that_moves_has_an_allocation_on_either_host(
    database: Database, hosts: list[Host], make: Make
) -> None:
    scheduler, request = make(), ask(database)
    source = scheduler.schedule(request).host_id
    scheduler.schedule(SchedulingRequest(request.server_id, 1, 1024, 1, excluded=frozenset({source})))
    assert allocations(database) == {"h1": 1, "h2": 1}


def test_a_move_knows_which_host_it_tries_and_which_it_tried_last(
    database: Database, hosts: list[Host], make: Make
) -> None:
    run, server = str(uuid4()), a_server()
    server.operation_id = run
    move = Migration(
        id=run,
        server_id=server.id,
        kind=MigrationKind.MIGRATION,
        source_id=hosts[0].id,
        old_flavor={},
        new_flavor={},
        former_vm_state=VmState.ACTIVE,
        former_power_state=PowerState.RUNNING,
    )
    add(database, server)
    add(database, move)
    excluded = {hosts[0].id}

    def tries() -> str:
        request = SchedulingRequest(server.id, 1, 1024, 1, excluded=frozenset(excluded), run_id=run)
        return make().schedule(request).host_id

    def target() -> str | None:
        with database.read() as session:
            return session.get_one(Migration, run).target_id

    assert (target(), tries(), target()) == (None, hosts[2].id, hosts[2].id)
    excluded.add(hosts[2].id)
    assert (tries(), target()) == (hosts[1].id, hosts[1].id)
    database.run(lambda session: release(session, server.id))
    assert target() == hosts[1].id


def test_hints_are_tried_first_in_their_order(database: Database, hosts: list[Host], make: Make) -> None:
    placement = make().schedule(ask(database), [hosts[0].id, hosts[1].id])
    assert placement == Placement(hosts[0].id, "h0", [(hosts[1].id, "h1")])


def test_a_hint_that_does_not_fit_any_more_is_passed_over(database: Database, hosts: list[Host], make: Make) -> None:
    scheduler = make()
    scheduler.schedule(ask(database))
    fill(database, hosts[0])
    assert scheduler.schedule(ask(database), [hosts[0].id, "gone"]).host_name == "h2"


def test_a_dead_host_is_no_candidate(database: Database, hosts: list[Host], make: Make) -> None:
    assert make(alive=frozenset({hosts[0].id})).schedule(ask(database)).host_name == "h0"


def test_a_reservation_lost_to_somebody_else_goes_to_the_next(
    database: Database, hosts: list[Host], make: Make
) -> None:
    scheduler = make()
    scheduler.schedule(ask(database))  # so that it has its picture
    fill(database, hosts[2])
    fill(database, hosts[1])
    assert scheduler.schedule(ask(database)).host_name == "h0"


def test_room_that_was_given_back_a_moment_ago_is_found(database: Database, hosts: list[Host], make: Make) -> None:
    scheduler = make()
    large = ask(database, ram_mib=12288)
    scheduler.schedule(large)
    with pytest.raises(NoValidHost):
        scheduler.schedule(ask(database, ram_mib=12288))
    database.run(lambda session: release(session, large.server_id))
    assert scheduler.schedule(ask(database, ram_mib=12288)).host_name == "h2"


def test_no_valid_host_says_why_filter_by_filter(database: Database, hosts: list[Host], make: Make) -> None:
    fill(database, hosts[1])
    with pytest.raises(NoValidHost) as refused:
        make(alive=frozenset({hosts[0].id, hosts[1].id})).schedule(ask(database, ram_mib=8192))
    assert refused.value.detail.hosts_considered == 3
    assert [(report.filter, report.removed, report.hosts) for report in refused.value.detail.filters] == [
        ("alive", 1, ["h2"]),
        ("size", 1, ["h0"]),
        ("ram", 1, ["h1"]),
    ]
    assert str(refused.value) == (
        "no host can take the server. Of 3: 1 not answering; "
        "1 without 1 vCPUs, 8192 MiB of RAM and 1 GiB of disk even when empty; "
        "1 with less than 8192 MiB of RAM free"
    )


def test_without_any_host_it_says_that(database: Database, make: Make) -> None:
    with pytest.raises(NoValidHost, match="no host has registered"):
        make().schedule(ask(database))


@pytest.mark.parametrize("schedulers", [1, 3])
def test_a_hundred_at_once_on_nearly_full_hosts_all_fit_and_not_one_more(
    database: Database, make: Make, schedulers: int
) -> None:
    # Ten hosts with room for ten each, all of them wanted by 110 servers at the same moment.
    add(database, *(a_host(name=f"h{number}", vcpus=64, ram_mib=10 * 1024) for number in range(10)))
    workers = [make(spread=3) for _ in range(schedulers)]
    requests = [ask(database) for _ in range(110)]

    def schedule(number: int) -> bool:
        try:
            workers[number % schedulers].schedule(requests[number])
        except NoValidHost:
            return False
        return True

    with ThreadPoolExecutor(110) as pool:
        placed = list(pool.map(schedule, range(110)))
    assert placed.count(True) == 100
    assert allocations(database) == {f"h{number}": 10 for number in range(10)}
