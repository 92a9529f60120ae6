"""Hosts: registered as they are, and owing until it is done."""

from activities.control.hosts import Hosts, host_ids, owing_hosts
from activities.interfaces.hosts import OwedId, OwedWork
from hostler.contract.resources import HostRegistration, Inventory
from models import Database, Host
from tests.activities.given import uuid

HOST = HostRegistration(
    id="00000000-0000-4000-8000-00000000000a",
    name="node-1",
    inventory=Inventory(vcpus=8, ram_mib=1024, disk_gib=10, architecture="x86_64", hypervisor_type="qemu"),
    volumes=True,
)


def owed() -> OwedWork:
    """Something that the host owes."""
    return OwedWork(
        id=uuid(), host_id=HOST.id, server_id=uuid(), activity="drop_claim", argument={"server_id": "x"}, reason="away"
    )


def generation(database: Database) -> int:
    """How often the host has changed."""
    with database.read() as session:
        return session.get_one(Host, HOST.id).generation


def test_a_host_is_known_once_it_has_registered(database: Database) -> None:
    assert Hosts(database).register_host(HOST) == []
    with database.read() as session:
        assert host_ids(session) == [HOST.id]
        row = session.get_one(Host, HOST.id)
    assert (row.name, row.ram_mib, row.volumes, row.enabled) == ("node-1", 1024, True, True)


def test_registering_anew_changes_what_it_says_and_keeps_what_operators_said(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    with database.write() as session:
        session.get_one(Host, HOST.id).enabled = False
    before = generation(database)
    hosts.register_host(HOST.model_copy(update={"name": "renamed"}))
    with database.read() as session:
        row = session.get_one(Host, HOST.id)
    assert (row.name, row.enabled) == ("renamed", False)
    assert row.generation > before


def test_what_it_owes_is_told_in_order_until_it_is_done(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    works = [owed(), owed()]
    for work in [*works, works[0]]:
        hosts.owe(work)
    assert hosts.register_host(HOST) == works
    with database.read() as session:
        assert [host.model_dump() for host in owing_hosts(session)] == [HOST.model_dump()]

    for work in [*works, works[0]]:
        hosts.settle_owed(OwedId(id=work.id, host_id=HOST.id))
    assert hosts.register_host(HOST) == []
    with database.read() as session:
        assert owing_hosts(session) == []


def test_owing_is_news_to_the_scheduler(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    seen = [generation(database)]
    work = owed()
    hosts.owe(work)
    seen.append(generation(database))
    hosts.settle_owed(OwedId(id=work.id, host_id=HOST.id))
    seen.append(generation(database))
    assert seen == sorted(set(seen))
