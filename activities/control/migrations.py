"""The rows of moves: what each did to its server's allocation, quota and state, and how that is taken back."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from activities.control.find import find_host
from activities.interfaces.servers import HostRef, OpenMove
from hostler.contract.errors import InvalidRequest
from hostler.contract.resources import Flavor
from hostler.contract.servers import MigrationKind, MigrationStatus, OperationName
from models import OPEN_MIGRATIONS, Host, Migration, Server
from scheduler.reservation import restore_former


def open_migration(session: Session, server_id: str) -> Migration | None:
    """The server's move that is not over."""
    query = select(Migration).where(Migration.server_id == server_id, col(Migration.status).in_(OPEN_MIGRATIONS))
    return session.exec(query.order_by(col(Migration.created_at).desc())).first()


def open_move(session: Session, server_id: str) -> OpenMove | None:
    """The same, as operations are told of it."""
    migration = open_migration(session, server_id)
    source = session.get(Host, migration.source_id) if migration else None
    if migration is None or source is None:
        return None
    return OpenMove(
        source=HostRef(id=source.id, name=source.name),
        kind=migration.kind,
        former=migration.former_vm_state,
        finished=migration.status is MigrationStatus.FINISHED,
    )


def new_migration(row: Server, run_id: str, kind: MigrationKind, flavor: Flavor | None = None) -> Migration:
    """The row of a move that begins; without a `flavor` the server keeps its own."""
    assert row.host_id is not None
    return Migration(
        id=run_id,
        server_id=row.id,
        kind=kind,
        source_id=row.host_id,
        old_flavor=row.flavor,
        new_flavor=flavor.model_dump(mode="json") if flavor else row.flavor,
        former_vm_state=row.vm_state,
        former_power_state=row.power_state,
    )


def check_destination(session: Session, row: Server, host: str | None, source: Host) -> None:
    """A host that is named must be there, and another one.

    Raises:
        NotFound, Conflict, InvalidRequest
    """
    if host is not None and find_host(session, host).id == source.id:
        raise InvalidRequest(
            f"server {row.name} is on host {source.name} already",
            field="host",
            value=host,
            remedy="name another host, or none: hostler host list",
        )


def ways_out(migration: Migration) -> Sequence[OperationName]:
    """What may be asked of a server of which a move was cut short, besides a delete."""
    if migration.kind is MigrationKind.EVACUATION:
        return (OperationName.REVERT_RESIZE, OperationName.EVACUATE)
    return (OperationName.REVERT_RESIZE,)


def out_of_move(migration: Migration) -> str:
    """The same as a remedy."""
    back = f"bring it back to where and what it was: hostler server revert {migration.server_id}"
    if OperationName.EVACUATE not in ways_out(migration):
        return back
    return f"evacuate it again: hostler server evacuate {migration.server_id}; or, should its host be back, {back}"


def abandon_move(session: Session, row: Server, run_id: str) -> None:
    """Take back what `begin_move` of this run did to the database, if it did and the move got no further."""
    migration = session.get(Migration, run_id)
    if migration is not None and migration.status is MigrationStatus.MIGRATING:
        migration.status = MigrationStatus.ERROR
        restore_former(session, row.id)
        count(row, Flavor.model_validate(row.flavor))


def end_migrations(session: Session, server_id: str, status: MigrationStatus) -> None:
    """Whatever move of the server is open is over."""
    query = select(Migration).where(Migration.server_id == server_id, col(Migration.status).in_(OPEN_MIGRATIONS))
    for migration in session.exec(query):
        migration.status, migration.confirms_at = status, None


def count(row: Server, *flavors: Flavor) -> None:
    """Let the server count against its quota as the largest of these flavors."""
    row.vcpus = max(flavor.vcpus for flavor in flavors)
    row.ram_mib = max(flavor.ram_mib for flavor in flavors)


def wear(row: Server, flavor: Flavor) -> None:
    """The server is of this flavor."""
    row.flavor, row.flavor_id, row.flavor_name = flavor.model_dump(mode="json"), flavor.id, flavor.name
