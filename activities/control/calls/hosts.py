"""Hosts: what each has and uses, and whether the scheduler may use it."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy
from sqlmodel import Session, col, func, select
from temporalio import activity

from activities.control.find import find_host
from activities.control.views import inventory
from hostler.contract.calls import LIST_HOSTS, NEW_MACHINE, SET_HOST, SHOW_HOST, HostState, Nothing, Ref
from hostler.contract.resources import Host, Owed
from models import Allocation, Database, OwedWork, bump_generation
from models import Host as Row
from scheduler.liveness import Alive


class HostCalls:
    """Owner of `enabled` and its reason, and of the operator's word that a host's machine is another one."""

    def __init__(self, database: Database, alive: Alive) -> None:
        self._database = database
        self._alive = alive

    @activity.defn(name=LIST_HOSTS.name)
    def list_hosts(self, call: Nothing) -> list[Host]:
        """All of them, by name."""
        with self._database.read() as session:
            return self._views(session, session.exec(select(Row).order_by(col(Row.name), col(Row.id))).all())

    @activity.defn(name=SHOW_HOST.name)
    def show_host(self, call: Ref) -> Host:
        """One, with all that it owes."""
        with self._database.read() as session:
            return self._view(session, find_host(session, call.ref))

    @activity.defn(name=SET_HOST.name)
    def set_host(self, call: HostState) -> Host:
        """Enable it, or disable it with a reason; servers that run there stay."""

        def change(session: Session) -> Host:
            row = find_host(session, call.ref)
            bump_generation(session, row.id)
            row.enabled, row.disabled_reason = call.enabled, None if call.enabled else call.reason
            session.flush()
            return self._view(session, row)

        return self._database.run(change)

    @activity.defn(name=NEW_MACHINE.name)
    def new_machine(self, call: Ref) -> Host:
        """Forget on which machine the host was: the next one that comes with its UUID is it."""

        def change(session: Session) -> Host:
            row = find_host(session, call.ref)
            row.machine_id = None
            session.flush()
            return self._view(session, row)

        return self._database.run(change)

    def _view(self, session: Session, row: Row) -> Host:
        query = select(OwedWork).where(OwedWork.host_id == row.id).order_by(col(OwedWork.created_at))
        owes = [
            Owed(activity=work.activity, server_id=work.server_id, since=work.created_at, reason=work.reason)
            for work in session.exec(query)
        ]
        return self._views(session, [row])[0].model_copy(update={"owes": owes})

    def _views(self, session: Session, rows: Sequence[Row]) -> list[Host]:
        alive = self._alive()
        use = _use(session, rows)
        owed_query = select(OwedWork.host_id, func.count()).group_by(col(OwedWork.host_id))
        owed = dict(session.exec(owed_query).all())
        return [_view(row, row.id in alive, use.get(row.id, _Use()), owed.get(row.id, 0)) for row in rows]


@dataclass(frozen=True)
class _Use:
    servers: int = 0
    vcpus: int = 0
    ram_mib: int = 0
    disk_gib: int = 0


def _use(session: Session, rows: Sequence[Row]) -> dict[str, _Use]:
    """What is allocated on each host."""
    sums = (
        sqlalchemy.select(
            col(Allocation.host_id),
            func.count(),
            func.sum(Allocation.vcpus),
            func.sum(Allocation.ram_mib),
            func.sum(Allocation.disk_gib),
        )
        .where(col(Allocation.host_id).in_([row.id for row in rows]) if len(rows) == 1 else sqlalchemy.true())
        .group_by(col(Allocation.host_id))
    )
    return {host_id: _Use(*(int(value) for value in use)) for host_id, *use in session.execute(sums)}


def _view(row: Row, up: bool, use: _Use, owed: int) -> Host:
    return Host(
        id=row.id,
        name=row.name,
        zone=row.zone,
        up=up,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        down_since=row.down_since,
        down_reason=row.down_reason,
        fenced=row.fenced,
        owed=owed,
        servers=use.servers,
        used_vcpus=use.vcpus,
        used_ram_mib=use.ram_mib,
        used_disk_gib=use.disk_gib,
        inventory=inventory(row),
        registered_at=row.registered_at,
    )
