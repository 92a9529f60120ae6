"""Hosts: what they say of themselves, which machine each is, and what they owe."""

from collections.abc import Sequence
from functools import partial
from uuid import uuid4

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.audit.facts import is_busy
from activities.control.events import write_events
from activities.control.power import agrees, follow
from activities.interfaces import hosts as interface
from activities.interfaces.guests import Guests
from activities.interfaces.hosts import OwedId, account_of
from activities.interfaces.hosts import OwedWork as Owed
from activities.interfaces.servers import EventLog, HostRef
from hostler.contract.calls import ADMIT_HOST, HostIdentity, Nothing
from hostler.contract.errors import Conflict
from hostler.contract.resources import HostRegistration
from hostler.contract.servers import OperationName, Step, StepStatus
from hostler.contract.states import TaskState
from models import Database, Host, OwedWork, Server, bump_generation, enter_owed, now

SWITCHING = [
    activity.__name__
    for activity in (Guests.start_guest, Guests.stop_guest, Guests.bring_back_guest, Guests.destroy_guest)
]
"""The work after which a server's guest may be otherwise."""


class Hosts(interface.Hosts):
    """Owner of the host and owed work rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name="register_host")
    def register_host(self, call: HostRegistration) -> list[Owed]:
        return self._database.run(partial(_register, call=call))

    @activity.defn(name="declared_down")
    def declared_down(self, call: HostRef) -> bool:
        with self._database.read() as session:
            host = session.get(Host, call.id)
            return host is None or host.down_since is not None

    @activity.defn(name="owe")
    def owe(self, call: Owed) -> None:
        def change(session: Session) -> None:
            bump_generation(session, call.host_id)
            row = session.get(OwedWork, call.id)
            if row is None:
                enter_owed(session, OwedWork(**call.model_dump()))
            else:  # it keeps its place
                row.reason = call.reason

        self._database.run(change)

    @activity.defn(name="settle_owed")
    def settle_owed(self, call: OwedId) -> None:
        self._database.run(partial(_settle, call=call))

    @activity.defn(name=ADMIT_HOST.name)
    def admit_host(self, call: HostIdentity) -> Nothing:
        """Whether a machine may be this host, asked before it does anything as such; a call of its worker, no step.

        Raises:
            Conflict: another machine is.
        """
        with self._database.read() as session:
            _check_machine(session.get(Host, call.id), call.machine_id)
        return Nothing()


def _register(session: Session, call: HostRegistration) -> list[Owed]:
    bump_generation(session, call.id)
    values = call.inventory.model_dump() | {"name": call.name, "zone": call.zone, "volumes": call.volumes}
    row = session.get(Host, call.id)
    _check_machine(row, call.machine_id)
    if row is None:
        row = Host(id=call.id, **values)
        session.add(row)
    else:
        back = {"down_since": None, "down_reason": None, "fenced": False}  # it answers: it is not down
        row.sqlmodel_update(values | back | {"registered_at": now()})
    row.machine_id = call.machine_id or row.machine_id
    session.flush()
    _start_none_that_is_deleted(session, call.id)
    owed = session.exec(select(OwedWork).where(OwedWork.host_id == call.id).order_by(col(OwedWork.created_at))).all()
    account = account_of(call.id, "it has registered and not yet said what it holds")
    if account.id not in {work.id for work in owed}:
        enter_owed(session, OwedWork(**account.model_dump()))
    end_account(session, call.id)
    return [Owed.model_validate(work.model_dump()) for work in _switching_off_first(owed) if work.id != account.id]


def _switching_off_first(owed: Sequence[OwedWork]) -> list[OwedWork]:
    """The works of each server in their order; but no guest that runs elsewhere by now waits for another's removal."""
    first: dict[str | None, str] = {}
    for work in owed:
        first.setdefault(work.server_id, work.id)
    stop = Guests.stop_guest.__name__
    return sorted(owed, key=lambda work: work.activity != stop or first[work.server_id] != work.id)


def _settle(session: Session, call: OwedId) -> None:
    # Locked first, as by the operations that lock both.
    server = session.get(Server, call.server_id, with_for_update=True) if call.server_id else None
    bump_generation(session, call.host_id)
    work = session.get(OwedWork, call.id)
    # Without it, this is a repetition: what the guest was then it need not be now.
    if work is not None and (server is None or _let_follow(session, server, call)):
        _enter(session, work, call.failure)
        session.delete(work)


def _enter(session: Session, work: OwedWork, failure: str | None) -> None:
    """Say in the server's events that the host has done what it owed, or why it never will."""
    if work.server_id is None or session.get(Server, work.server_id) is None:
        return
    host = session.get_one(Host, work.host_id)
    step = Step(
        name=work.activity,
        status=StepStatus.FAILED if failure else StepStatus.DONE,
        host=host.name,
        started_at=now(),
        finished_at=now(),
        note=f"owed since {work.created_at:%Y-%m-%d %H:%M:%S}: {work.reason}",
        error=failure,
    )
    log = EventLog(server_id=work.server_id, run_id=str(uuid4()), operation=OperationName.AUDIT, steps=[step])
    write_events(session, log)


def _let_follow(session: Session, server: Server, call: OwedId) -> bool:
    """Let the server follow its guest, where that is due; False if it is, but an operation has the server."""
    if server.deleted_at is not None or _is_switched_again(session, call):
        return True
    if server.host_id != call.host_id:  # a revert may be about to bring it here
        return server.task_state is not TaskState.RESIZE_REVERTING
    if call.power_state is not None and agrees(server, call.power_state):
        return True
    if is_busy(server):
        return False
    if call.power_state is not None:
        follow(session, server, call.power_state)
    return True


def _is_switched_again(session: Session, call: OwedId) -> bool:
    """Whether the host owes more of that kind, which then says what the guest is in the end."""
    query = select(OwedWork.id).where(OwedWork.host_id == call.host_id, OwedWork.server_id == call.server_id)
    return session.exec(query.where(OwedWork.id != call.id, col(OwedWork.activity).in_(SWITCHING))).first() is not None


def end_account(session: Session, host_id: str) -> None:
    """The servers that the host's account held are free."""
    holder = account_of(host_id, "").id
    for server in session.exec(select(Server).where(Server.operation_id == holder).with_for_update()):
        server.operation_id = None


def _start_none_that_is_deleted(session: Session, host_id: str) -> None:
    """A guest of a server that is deleted by now must not run again, not even until it is removed."""
    query = select(OwedWork, Server).outerjoin(Server, col(Server.id) == OwedWork.server_id)
    start = Guests.start_guest.__name__
    found: Sequence[tuple[OwedWork, Server | None]] = session.exec(
        query.where(OwedWork.host_id == host_id, OwedWork.activity == start)
    ).all()
    for work, server in found:
        if server is None or server.deleted_at is not None or server.task_state is TaskState.DELETING:
            session.delete(work)
    session.flush()


def _check_machine(row: Host | None, machine_id: str | None) -> None:
    """See that no other machine is this host.

    Raises:
        Conflict: one is. Two machines under one UUID would take each other's steps.
    """
    if row is None or machine_id is None or row.machine_id in (None, machine_id):
        return
    raise Conflict(
        f"another machine is host {row.name} ({row.id}) already: this one was made from a copy of its state directory, "
        "or its operating system was installed anew",
        field="host_id",
        value=row.id,
        remedy="if it is a copy, give this machine a state directory of its own; if it takes the place of the other, "
        f"which is off for good: hostler host new-machine {row.id}",
    )


def owing_hosts(session: Session) -> list[HostRegistration]:
    """Every host that owes work, be it only to say that it is not down, as it registered last."""
    owes = col(Host.id).in_(select(OwedWork.host_id))
    hosts = session.exec(select(Host).where(owes | col(Host.down_since).is_not(None))).all()
    return [
        HostRegistration(
            id=host.id,
            name=host.name,
            zone=host.zone,
            volumes=host.volumes,
            machine_id=host.machine_id,
            inventory=host.model_dump(),
        )
        for host in hosts
    ]


def host_ids(session: Session) -> list[str]:
    """The UUIDs of all hosts."""
    return list(session.exec(select(Host.id)).all())
