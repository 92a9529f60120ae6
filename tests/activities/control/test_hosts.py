"""Hosts: registered as they are, and owing until it is done."""

import pytest
from sqlmodel import select

from activities.control.calls.hosts import HostCalls
from activities.control.hosts import Hosts, host_ids, owing_hosts
from activities.interfaces.hosts import OwedId, OwedWork, account_of
from hostler.contract.calls import HostIdentity, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.resources import HostRegistration, Inventory
from models import Database, Host, now
from models import OwedWork as Work
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
    hosts.settle_owed(OwedId(id=account_of(HOST.id, "").id, host_id=HOST.id))
    with database.read() as session:
        assert owing_hosts(session) == []


def test_a_host_that_has_registered_owes_an_account_of_what_it_holds(database: Database) -> None:
    hosts = Hosts(database)
    for _ in range(2):
        hosts.register_host(HOST)
    with database.read() as session:
        [work] = session.exec(select(Work)).all()
    assert (work.id, work.activity, work.server_id) == (account_of(HOST.id, "").id, "list_holdings", None)


def test_why_it_is_still_owed_can_be_said_again(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    first, second = owed(), owed()
    for work in (first, second, first.model_copy(update={"reason": "the disk is full"})):
        hosts.owe(work)
    assert [(work.id, work.reason) for work in hosts.register_host(HOST)] == [
        (first.id, "the disk is full"),
        (second.id, "away"),
    ]


def test_a_host_that_registers_is_no_longer_declared_down(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    hosts.settle_owed(OwedId(id=account_of(HOST.id, "").id, host_id=HOST.id))
    with database.write() as session:
        row = session.get_one(Host, HOST.id)
        row.down_since, row.down_reason, row.fenced = now(), "its power supply burnt", True
    with database.read() as session:
        assert [host.id for host in owing_hosts(session)] == [HOST.id]  # should it answer, it is asked to register

    before = generation(database)
    hosts.register_host(HOST)

    with database.read() as session:
        row = session.get_one(Host, HOST.id)
    assert (row.down_since, row.down_reason, row.fenced) == (None, None, False)
    assert generation(database) > before


def test_a_host_is_one_machine_until_an_operator_says_otherwise(database: Database) -> None:
    hosts, calls = Hosts(database), HostCalls(database, frozenset)
    one, other = (HOST.model_copy(update={"machine_id": letter * 32}) for letter in "ab")
    hosts.register_host(HOST)  # by a worker of before machines were told apart
    hosts.register_host(one)
    hosts.register_host(HOST)
    with pytest.raises(Conflict, match="another machine is host node-1") as caught:
        hosts.register_host(other)
    assert caught.value.detail.field == "host_id"
    assert caught.value.remedy
    with pytest.raises(Conflict):
        hosts.admit_host(HostIdentity(id=HOST.id, machine_id="b" * 32))
    hosts.admit_host(HostIdentity(id=HOST.id, machine_id="a" * 32))
    hosts.admit_host(HostIdentity(id=uuid(), machine_id="b" * 32))

    calls.new_machine(Ref(ref="node-1"))
    hosts.register_host(other)
    with pytest.raises(Conflict):
        hosts.register_host(one)


def test_what_is_owed_is_shown_with_since_when_and_why(database: Database) -> None:
    hosts, calls = Hosts(database), HostCalls(database, frozenset)
    hosts.register_host(HOST)
    work = owed()
    hosts.owe(work)
    account, shown = calls.show_host(Ref(ref="node-1")).owes
    assert account.activity == "list_holdings"
    assert (shown.activity, shown.server_id, shown.reason) == ("drop_claim", work.server_id, "away")
    assert shown.since >= account.since
    [listed] = calls.list_hosts(Nothing())
    assert (listed.owed, listed.owes) == (2, [])


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
