"""What is free: the inventory, less the reservation, times the overcommit, less the sum of the allocations."""

import pytest

from models import Allocation, Database, Host, OwedWork
from scheduler.host_state import CHUNK, HostState, read_states
from tests.rows import a_host, a_server, add


def state_of(database: Database, host: Host) -> HostState:
    with database.read() as session:
        (state,) = read_states(session, [host.id])
    return state


@pytest.fixture
def host(database: Database) -> Host:
    host = a_host(
        vcpus=8, ram_mib=16384, disk_gib=100, reserved_ram_mib=384, reserved_disk_gib=10,
        cpu_ratio=4.0, ram_ratio=1.5, disk_ratio=2.0,
    )  # fmt: skip
    add(database, host)
    return host


def test_overcommit_and_reservation_are_taken_into_account(database: Database, host: Host) -> None:
    state = state_of(database, host)
    assert (state.free_vcpus, state.free_ram_mib, state.free_disk_gib) == (32, 24000, 180)
    assert (state.vcpus, state.ram_mib, state.disk_gib) == (8, 16384, 100)


def test_allocations_are_added_up(database: Database, host: Host) -> None:
    servers = [a_server(), a_server()]
    add(database, *servers)
    add(database, *(Allocation(server_id=s.id, host_id=host.id, vcpus=2, ram_mib=1000, disk_gib=30) for s in servers))
    state = state_of(database, host)
    assert (state.free_vcpus, state.free_ram_mib, state.free_disk_gib) == (28, 22000, 120)


def test_owed_work_is_counted_apart_from_allocations(database: Database, host: Host) -> None:
    server = a_server()
    add(database, server)
    add(database, Allocation(server_id=server.id, host_id=host.id, vcpus=2, ram_mib=1000, disk_gib=30))
    add(database, *(OwedWork(id=str(n), host_id=host.id, activity="destroy", argument={}, reason="") for n in range(3)))
    state = state_of(database, host)
    assert (state.owed, state.free_vcpus) == (3, 30)


def test_names_are_made_comparable(database: Database) -> None:
    host = a_host(architecture="AMD64", hypervisor_type="QEMU")
    add(database, host)
    state = state_of(database, host)
    assert (state.architecture, state.hypervisor_type) == ("x86_64", "qemu")


def test_all_hosts_are_read_when_none_is_named(database: Database) -> None:
    hosts = [a_host() for _ in range(CHUNK + 2)]
    add(database, *hosts)
    with database.read() as session:
        assert {state.id for state in read_states(session)} == {host.id for host in hosts}
        some = [host.id for host in hosts[1:]]
        assert {state.id for state in read_states(session, some)} == set(some)
        assert read_states(session, []) == []
