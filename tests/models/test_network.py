"""An address is given out once in a network, and the row is the lease."""

import pytest
from sqlalchemy.exc import IntegrityError

from models import Database, Network, Port
from models.network import free_vni
from tests.rows import a_server, add


def a_network(name: str, project: str = "blue") -> Network:
    return Network(id=f"{project}-{name}", name=name, project=project, cidr="10.0.0.0/24", gateway="10.0.0.1")


@pytest.fixture
def server_id(database: Database) -> str:
    server = a_server()
    add(database, server, a_network("front"), a_network("back"))
    return server.id


def test_an_address_is_given_out_once(database: Database, server_id: str) -> None:
    add(database, Port(id="a", network_id="blue-front", server_id=server_id, mac="fa:16:3e:00:00:01", ip="10.0.0.5"))
    with pytest.raises(IntegrityError):
        add(
            database, Port(id="b", network_id="blue-front", server_id=server_id, mac="fa:16:3e:00:00:02", ip="10.0.0.5")
        )


def test_two_networks_may_use_the_same_addresses(database: Database, server_id: str) -> None:
    add(
        database,
        Port(id="a", network_id="blue-front", server_id=server_id, mac="fa:16:3e:00:00:01", ip="10.0.0.5"),
        Port(id="b", network_id="blue-back", server_id=server_id, mac="fa:16:3e:00:00:02", ip="10.0.0.5"),
    )


def test_each_network_gets_a_number_of_its_own_in_the_overlay(database: Database) -> None:
    with database.write() as session:
        first = free_vni(session, "blue-front")
        assert free_vni(session, "blue-front") == first
        network = a_network("front")
        network.vni = first
        session.add(network)
        session.flush()
        assert free_vni(session, "blue-front") != first
        assert 0 < first < 2**24


def test_a_project_has_one_network_of_a_name(database: Database, server_id: str) -> None:
    add(database, a_network("front", project="red"))
    with pytest.raises(IntegrityError):
        add(database, Network(id="another", name="front", project="blue", cidr="10.1.0.0/24", gateway="10.1.0.1"))
