"""Hosts: what they say of themselves and what they owe."""

from functools import partial

from sqlmodel import Session, col, delete, select
from temporalio import activity

from activities.interfaces import hosts as interface
from activities.interfaces.hosts import OwedId
from activities.interfaces.hosts import OwedWork as Owed
from hostler.contract.resources import HostRegistration
from models import Database, Host, OwedWork, bump_generation, now


class Hosts(interface.Hosts):
    """Owner of the host and owed work rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name="register_host")
    def register_host(self, call: HostRegistration) -> list[Owed]:
        return self._database.run(partial(_register, call=call))

    @activity.defn(name="owe")
    def owe(self, call: Owed) -> None:
        def change(session: Session) -> None:
            bump_generation(session, call.host_id)
            if session.get(OwedWork, call.id) is None:  # what is there keeps its place
                session.add(OwedWork(**call.model_dump()))

        self._database.run(change)

    @activity.defn(name="settle_owed")
    def settle_owed(self, call: OwedId) -> None:
        def change(session: Session) -> None:
            bump_generation(session, call.host_id)
            session.exec(delete(OwedWork).where(col(OwedWork.id) == call.id))

        self._database.run(change)


def _register(session: Session, call: HostRegistration) -> list[Owed]:
    bump_generation(session, call.id)
    values = call.inventory.model_dump() | {"name": call.name, "zone": call.zone, "volumes": call.volumes}
    row = session.get(Host, call.id)
    if row is None:
        session.add(Host(id=call.id, **values))
    else:
        row.sqlmodel_update(values | {"registered_at": now()})
    owed = session.exec(select(OwedWork).where(OwedWork.host_id == call.id).order_by(col(OwedWork.created_at))).all()
    return [Owed.model_validate(work.model_dump()) for work in owed]


def owing_hosts(session: Session) -> list[HostRegistration]:
    """Every host that owes work, as it registered last."""
    hosts = session.exec(select(Host).where(col(Host.id).in_(select(OwedWork.host_id)))).all()
    return [
        HostRegistration(id=host.id, name=host.name, zone=host.zone, volumes=host.volumes, inventory=host.model_dump())
        for host in hosts
    ]


def host_ids(session: Session) -> list[str]:
    """The UUIDs of all hosts."""
    return list(session.exec(select(Host.id)).all())
