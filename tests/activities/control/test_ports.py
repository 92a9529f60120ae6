"""Addresses: each is handed out once, however many ask at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import select

from activities.control.ports import Ports
from activities.interfaces.ports import AllocatePorts
from activities.interfaces.servers import ServerRef
from hostler.contract.errors import Conflict, InvalidRequest, NotFound
from hostler.contract.servers import NetworkRequest
from models import Database, Network, Port
from tests.activities.given import uuid
from tests.rows import a_server, add

NET = uuid()
Ask = Callable[..., AllocatePorts]


@pytest.fixture
def ports(database: Database) -> Ports:
    """The activities on ports, with one network of six addresses for servers."""
    add(database, Network(id=NET, name="net", cidr="10.0.0.0/29", gateway="10.0.0.1"))
    return Ports(database)


@pytest.fixture
def ask(database: Database) -> Ask:
    """The request of a new server for a port on each of the networks."""

    def make(*networks: str, fixed_ip: str | None = None) -> AllocatePorts:
        server = a_server()
        add(database, server)
        wanted = [NetworkRequest(network=network, fixed_ip=fixed_ip) for network in networks or (NET,)]
        return AllocatePorts(server_id=server.id, run_id=uuid(), name="web", networks=wanted)

    return make


def test_a_port_has_all_that_its_host_needs(ports: Ports, ask: Ask) -> None:
    [port] = ports.allocate_ports(ask())
    assert (port.ip, port.prefix, port.gateway, port.network, port.hostname) == (
        "10.0.0.2",
        29,
        "10.0.0.1",
        "net",
        "web",
    )
    assert port.mac.startswith("fa:16:3e:")


def test_allocated_twice_they_are_the_same_ports(ports: Ports, ask: Ask) -> None:
    call = ask(NET, NET)
    first = ports.allocate_ports(call)
    assert ports.allocate_ports(call) == first
    assert [port.ip for port in first] == ["10.0.0.2", "10.0.0.3"]


def test_no_address_is_handed_out_twice(ports: Ports, ask: Ask) -> None:
    calls = [ask() for _ in range(8)]

    def allocate(call: AllocatePorts) -> str:
        try:
            return ports.allocate_ports(call)[0].ip
        except Conflict:
            return "full"

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(allocate, calls))
    assert answers == [f"10.0.0.{last}" for last in range(2, 7)] + ["full"] * 3


def test_a_fixed_address_has_one_owner(ports: Ports, ask: Ask) -> None:
    calls = [ask(fixed_ip="10.0.0.5") for _ in range(4)]

    def allocate(call: AllocatePorts) -> bool:
        try:
            return bool(ports.allocate_ports(call))
        except Conflict:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(allocate, calls)) == [False, False, False, True]


def test_networks_in_opposite_orders_do_not_wait_for_each_other(ports: Ports, ask: Ask, database: Database) -> None:
    other = uuid()
    add(database, Network(id=other, name="other", cidr="10.1.0.0/24", gateway="10.1.0.1"))
    calls = [ask(NET, other) if number % 2 else ask(other, NET) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert [len(allocated) for allocated in pool.map(ports.allocate_ports, calls)] == [2] * 4


@pytest.mark.parametrize("address", ["10.9.0.5", "10.0.0.0", "10.0.0.7"])
def test_an_address_must_be_one_for_servers(ports: Ports, ask: Ask, address: str) -> None:
    with pytest.raises(InvalidRequest):
        ports.allocate_ports(ask(fixed_ip=address))


def test_a_network_that_is_gone_is_not_found(ports: Ports, ask: Ask) -> None:
    with pytest.raises(NotFound):
        ports.allocate_ports(ask(uuid()))


def test_what_fails_for_one_network_takes_nothing_of_the_others(ports: Ports, ask: Ask, database: Database) -> None:
    with pytest.raises(NotFound):
        ports.allocate_ports(ask(NET, uuid()))
    with database.read() as session:
        assert session.exec(select(Port)).first() is None


def test_released_twice_they_are_free_once_more(ports: Ports, ask: Ask) -> None:
    call = ask()
    ports.allocate_ports(call)
    for _ in range(2):
        ports.release_ports(ServerRef(server_id=call.server_id))
    assert ports.allocate_ports(ask())[0].ip == "10.0.0.2"


def test_two_ports_with_the_same_hash_have_different_macs(ports: Ports, ask: Ask, database: Database) -> None:
    call = ask()
    [port] = ports.allocate_ports(call)
    ports.release_ports(ServerRef(server_id=call.server_id))
    thief = ask()
    add(database, Port(id=uuid(), network_id=NET, server_id=thief.server_id, mac=port.mac, ip="10.0.0.6"))
    assert ports.allocate_ports(call)[0].mac != port.mac
