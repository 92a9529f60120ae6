"""Aggregates of hosts."""

from collections import defaultdict
from collections.abc import Sequence

from sqlmodel import Session, col, delete, or_, select
from temporalio import activity

from activities.control.find import find_host
from hostler.contract.calls import (
    ADD_AGGREGATE_HOST,
    CREATE_AGGREGATE,
    DELETE_AGGREGATE,
    LIST_AGGREGATES,
    REMOVE_AGGREGATE_HOST,
    SET_AGGREGATE,
    SHOW_AGGREGATE,
    AggregateMember,
    AggregateMetadata,
    Nothing,
    Ref,
)
from hostler.contract.errors import Conflict, NotFound
from hostler.contract.resources import Aggregate
from hostler.contract.validation import check_aggregate
from models import Aggregate as Row
from models import AggregateHost, Database, Host


class AggregateCalls:
    """Owner of the aggregates. A host may be in several, or in none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=CREATE_AGGREGATE.name)
    def create_aggregate(self, call: Aggregate) -> Aggregate:
        """Make it, without hosts; the same one again is no error."""
        check_aggregate(call)

        def change(session: Session) -> Aggregate:
            for row in session.exec(select(Row).where((Row.id == call.id) | (Row.name == call.name))):
                if (row.id, row.name, row.metadata_) != (call.id, call.name, call.metadata):
                    raise Conflict(
                        f"there is an aggregate {row.name!r} already",
                        field="name",
                        value=call.name,
                        remedy="choose another name, or delete that one",
                    )
                return _view(session, row)
            row = Row(id=call.id, name=call.name, metadata_=call.metadata)
            session.add(row)
            session.flush()
            return _view(session, row)

        return self._database.run(change)

    @activity.defn(name=LIST_AGGREGATES.name)
    def list_aggregates(self, call: Nothing) -> list[Aggregate]:
        """All of them, by name."""
        with self._database.read() as session:
            return _views(session, session.exec(select(Row).order_by(col(Row.name))).all())

    @activity.defn(name=SHOW_AGGREGATE.name)
    def show_aggregate(self, call: Ref) -> Aggregate:
        """One."""
        with self._database.read() as session:
            return _view(session, _find(session, call.ref))

    @activity.defn(name=DELETE_AGGREGATE.name)
    def delete_aggregate(self, call: Ref) -> Nothing:
        """Remove one that has no hosts."""

        def change(session: Session) -> None:
            row = _find(session, call.ref)
            if hosts := _view(session, row).hosts:
                raise Conflict(
                    f"aggregate {row.name} has {len(hosts)} hosts",
                    field="aggregate",
                    value=row.id,
                    remedy=f"take them out first: hostler aggregate remove-host {row.name} {hosts[0]}",
                )
            session.delete(row)

        self._database.run(change)
        return Nothing()

    @activity.defn(name=ADD_AGGREGATE_HOST.name)
    def add_aggregate_host(self, call: AggregateMember) -> Aggregate:
        """Put a host in; one that is in already stays."""

        def change(session: Session) -> Aggregate:
            row, host = _find(session, call.ref), find_host(session, call.host)
            if session.get(AggregateHost, (row.id, host.id)) is None:
                session.add(AggregateHost(aggregate_id=row.id, host_id=host.id))
                session.flush()
            return _view(session, row)

        return self._database.run(change)

    @activity.defn(name=REMOVE_AGGREGATE_HOST.name)
    def remove_aggregate_host(self, call: AggregateMember) -> Aggregate:
        """Take a host out; one that is not in is no error."""

        def change(session: Session) -> Aggregate:
            row, host = _find(session, call.ref), find_host(session, call.host)
            of_this = col(AggregateHost.aggregate_id) == row.id
            session.exec(delete(AggregateHost).where(of_this, col(AggregateHost.host_id) == host.id))
            return _view(session, row)

        return self._database.run(change)

    @activity.defn(name=SET_AGGREGATE.name)
    def set_aggregate(self, call: AggregateMetadata) -> Aggregate:
        """Change its metadata, key by key."""

        def change(session: Session) -> Aggregate:
            row = _find(session, call.ref, lock=True)
            metadata = call.applied(row.metadata_)
            check_aggregate(Aggregate(id=row.id, name=row.name, metadata=metadata))
            row.metadata_ = metadata
            session.flush()
            return _view(session, row)

        return self._database.run(change)


def _find(session: Session, ref: str, *, lock: bool = False) -> Row:
    """The aggregate with this UUID or name.

    Raises:
        NotFound: there is none.
    """
    query = select(Row).where(or_(col(Row.id) == ref, col(Row.name) == ref))
    row = session.exec(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(f"no aggregate {ref!r}", field="aggregate", value=ref, remedy="see: hostler aggregate list")
    return row


def _view(session: Session, row: Row) -> Aggregate:
    return _views(session, [row])[0]


def _views(session: Session, rows: Sequence[Row]) -> list[Aggregate]:
    query = select(AggregateHost.aggregate_id, Host.name).join(Host, col(Host.id) == AggregateHost.host_id)
    query = query.where(col(AggregateHost.aggregate_id).in_([row.id for row in rows])).order_by(col(Host.name))
    hosts = defaultdict[str, list[str]](list)
    for aggregate_id, name in session.exec(query):
        hosts[aggregate_id].append(name)
    return [
        Aggregate(id=row.id, name=row.name, metadata=row.metadata_, hosts=hosts[row.id], created_at=row.created_at)
        for row in rows
    ]
