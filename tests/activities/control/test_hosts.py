"""Hosts: registered as they are, and owing until it is done."""

import pytest
from sqlmodel import select

from activities.control.calls.hosts import HostCalls
from activities.control.events import read_events
from activities.control.hosts import Hosts, host_ids, owing_hosts
from activities.interfaces.hosts import OwedId, OwedWork, account_of
from hostler.contract.calls import HostIdentity, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.resources import HostRegistration, Inventory
from hostler.contract.servers import OperationName, StepStatus
from hostler.contract.states import PowerState, TaskState, VmState
from models import Database, Host, Server, now
from models import OwedWork as Work
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add

HOST = HostRegistration(
    id="00000000-0000-4000-8000-00000000000a",
    name="node-1",
    inventory=Inventory(vcpus=8, ram_mib=1024, disk_gib=10, architecture="x86_64", hypervisor_type="qemu"),
    volumes=True,
)


RUNNING, SHUTDOWN = PowerState.RUNNING, PowerState.SHUTDOWN


def owed(activity: str = "drop_claim", server_id: str | None = None) -> OwedWork:
    """Something that the host owes."""
    return OwedWork(
        id=uuid(),
        host_id=HOST.id,
        server_id=server_id or uuid(),
        activity=activity,
        argument={"server_id": "x"},
        reason="away",
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


# What a host that has switched a guest on or off, as it owed, makes of its server.


class Settling:
    """A server of the host's, ACTIVE, of which the host owes this work, in this order."""

    def __init__(self, database: Database, *activities: str) -> None:
        self._database = database
        self._hosts = Hosts(database)
        self._hosts.register_host(HOST)
        self._hosts.settle_owed(OwedId(id=account_of(HOST.id, "").id, host_id=HOST.id))
        self.server = a_server(vm_state=VmState.ACTIVE, power_state=RUNNING, host_id=HOST.id)
        add(database, self.server)
        self.works = [owed(activity, self.server.id) for activity in activities]
        for work in self.works:
            self._hosts.owe(work)

    def is_now(self, **changes: object) -> None:
        """The server's row changes."""
        with self._database.write() as session:
            session.get_one(Server, self.server.id).sqlmodel_update(changes)

    def settle(self, power_state: PowerState | None, work: int = 0) -> None:
        """The host has done it, and the guest is this since; None: nobody knows."""
        ours = {"id": self.works[work].id, "host_id": HOST.id, "server_id": self.server.id}
        self._hosts.settle_owed(OwedId(**ours, power_state=power_state))

    @property
    def state(self) -> tuple[str, str]:
        """The server's state, and its guest's."""
        with self._database.read() as session:
            row = session.get_one(Server, self.server.id)
        return row.vm_state, row.power_state

    @property
    def owes(self) -> list[str]:
        """What the host owes still."""
        with self._database.read() as session:
            return [work.activity for work in session.exec(select(Work))]

    @property
    def notes(self) -> list[str | None]:
        """What the server's history says of its guest."""
        with self._database.read() as session:
            events = read_events(session, self.server.id)
        return [event.step.note for event in events if event.operation is OperationName.HYPERVISOR]


def test_a_server_follows_the_guest_that_its_host_has_switched_off_and_its_history_says_so(database: Database) -> None:
    one = Settling(database, "stop_guest")
    one.settle(SHUTDOWN)
    assert one.state == ("stopped", "shutdown")
    assert one.owes == []
    assert one.notes == ["its guest is shutdown, was running: SHUTOFF, was ACTIVE"]


def test_a_guest_that_is_as_its_server_says_is_no_event(database: Database) -> None:
    one = Settling(database, "start_guest")
    one.settle(RUNNING)
    assert one.state == ("active", "running")
    assert (one.owes, one.notes) == ([], [])


def test_what_is_settled_a_second_time_is_not_followed_again(database: Database) -> None:
    """The answer was lost, and somebody has started the server since."""
    one = Settling(database, "stop_guest")
    one.settle(SHUTDOWN)
    one.is_now(vm_state=VmState.ACTIVE, power_state=RUNNING)
    one.settle(SHUTDOWN)
    assert one.state == ("active", "running")


def test_only_the_last_that_switches_the_guest_says_what_it_is(database: Database) -> None:
    one = Settling(database, "stop_guest", "start_guest")
    one.settle(SHUTDOWN)
    assert one.state == ("active", "running")
    assert one.owes == ["start_guest"]
    one.settle(RUNNING, work=1)
    assert one.state == ("active", "running")
    assert (one.owes, one.notes) == ([], [])


def test_what_is_owed_behind_it_and_switches_nothing_is_not_waited_for(database: Database) -> None:
    """So is the claim of a move that is taken back: it comes after the start, and knows nothing of the guest."""
    one = Settling(database, "start_guest", "bring_back_claim")
    one.settle(SHUTDOWN)
    assert one.state == ("stopped", "shutdown")
    assert one.owes == ["bring_back_claim"]


@pytest.mark.parametrize("power_state", [SHUTDOWN, None])
def test_while_an_operation_has_the_server_it_stays_owed_and_is_followed_afterwards(
    database: Database, power_state: PowerState | None
) -> None:
    """The operation, an evacuation say, does not know that the guest is off now, and ends with what the server was."""
    one = Settling(database, "stop_guest")
    one.is_now(operation_id=uuid(), task_state=TaskState.REBUILDING)
    one.settle(power_state)
    assert one.state == ("active", "running")
    assert one.owes == ["stop_guest"]

    one.is_now(operation_id=None, task_state=None)
    one.settle(SHUTDOWN)
    assert one.state == ("stopped", "shutdown")
    assert one.owes == []


def test_what_the_row_says_already_need_not_wait_for_the_operation(database: Database) -> None:
    one = Settling(database, "stop_guest")
    one.is_now(vm_state=VmState.STOPPED, power_state=SHUTDOWN, operation_id=uuid(), task_state=TaskState.REBUILDING)
    one.settle(SHUTDOWN)
    assert (one.owes, one.notes) == ([], [])


def test_a_guest_of_a_server_that_is_elsewhere_or_deleted_by_now_says_nothing_about_it(database: Database) -> None:
    other = a_host(name="other")
    add(database, other)
    for changes in ({"host_id": other.id}, {"deleted_at": now()}):
        one = Settling(database, "stop_guest")
        one.is_now(**changes, operation_id=uuid())
        one.settle(SHUTDOWN)
        assert one.state == ("active", "running")
        assert (one.owes, one.notes) == ([], [])


def test_a_server_that_a_revert_brings_back_follows_once_it_is_there(database: Database) -> None:
    other = a_host(name="other")
    add(database, other)
    one = Settling(database, "start_guest")
    here = one.server.host_id
    one.is_now(host_id=other.id, operation_id=uuid(), task_state=TaskState.RESIZE_REVERTING)
    one.settle(RUNNING)
    assert one.owes == ["start_guest"]

    one.is_now(host_id=here, operation_id=None, task_state=None, power_state=SHUTDOWN)
    one.settle(RUNNING)
    assert one.state == ("active", "running")
    assert one.owes == []


def test_without_knowing_what_the_guest_is_the_server_stays_what_it_was(database: Database) -> None:
    one = Settling(database, "stop_guest")
    one.settle(None)
    assert one.state == ("active", "running")
    assert (one.owes, one.notes) == ([], [])


def test_a_guest_that_is_gone_shows_in_the_power_state(database: Database) -> None:
    one = Settling(database, "start_guest")
    one.settle(PowerState.NOSTATE)
    assert one.state == ("active", "nostate")
    assert one.notes == ["its guest is nostate, was running"]


@pytest.mark.parametrize(("failure", "status"), [(None, StepStatus.DONE), ("its disk is gone", StepStatus.FAILED)])
def test_the_servers_history_says_that_what_was_owed_is_done_or_never_will_be(
    database: Database, failure: str | None, status: StepStatus
) -> None:
    host, server = a_host(id=HOST.id), a_server(host_id=HOST.id)
    add(database, host, server)
    hosts = Hosts(database)
    work = owed("destroy_guest", server.id)
    hosts.owe(work)

    for _ in range(2):
        hosts.settle_owed(OwedId(id=work.id, host_id=HOST.id, failure=failure))

    with database.read() as session:
        [event] = read_events(session, server.id)
    step = event.step
    assert (event.operation, step.name, step.host) == (OperationName.AUDIT, "destroy_guest", host.name)
    assert (step.status, step.error) == (status, failure)
    assert step.note is not None
    assert step.note.endswith(": away")


def test_a_guest_that_runs_elsewhere_is_switched_off_before_what_others_left_is_removed(database: Database) -> None:
    hosts = Hosts(database)
    hosts.register_host(HOST)
    one, two, three = uuid(), uuid(), uuid()
    works = [
        *(owed("delete_volume_data", one), owed("bring_back_guest", two), owed("stop_guest", two)),
        *(owed("stop_guest", three), owed("destroy_guest", three)),
    ]
    for work in works:
        hosts.owe(work)
    assert hosts.register_host(HOST) == [works[3], *works[:3], works[4]]
