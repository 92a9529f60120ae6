"""The rows of moves: what each did to its server's allocation, quota and state, and how that is taken back."""

from collections.abc import Callable, Sequence
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel
from sqlmodel import Session, col, delete, select

from activities.control.find import find_host
from activities.interfaces.guests import Claims, Guests
from activities.interfaces.ports import HostPorts, PortIds
from activities.interfaces.servers import HostRef, OpenMove, ServerRef
from hostler.contract.errors import InvalidRequest
from hostler.contract.resources import Flavor
from hostler.contract.servers import MigrationKind, MigrationStatus, OperationName
from hostler.contract.states import VmState
from models import OPEN_MIGRATIONS, BlockDevice, Host, Migration, OwedWork, Port, Server, enter_owed, owes
from scheduler.reservation import former_hosts, lock_hosts, release_former, restore_former

COLD = (MigrationKind.RESIZE, MigrationKind.MIGRATION)
"""Those that wait to be decided on."""


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
        handed_over=migration.kind is MigrationKind.LIVE_MIGRATION and _removes(session, migration),
    )


def _removes(session: Session, migration: Migration) -> bool:
    """Whether the source is yet to remove the guest: nothing but a migration that got across has left it that."""
    return owes(session, migration.server_id, migration.source_id, Guests.destroy_guest.__name__)


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


def ways_out(session: Session, migration: Migration) -> Sequence[OperationName]:
    """What may be asked of a server of which a move was cut short, besides a delete.

    A source that was declared down brings nothing back: what was on it is built elsewhere, or, where a revert was cut
    short before it had removed that, what the server has been since its move is kept.
    """
    ways = [OperationName.REVERT_RESIZE]
    lost = migration.kind in COLD and session.get_one(Host, migration.source_id).down_since is not None
    if lost or migration.kind is MigrationKind.EVACUATION:
        ways.append(OperationName.EVACUATE)
    if lost and _is_apart(migration):
        ways.append(OperationName.CONFIRM_RESIZE)
    return ways


def out_of_move(migration: Migration) -> str:
    """The same as a remedy."""
    back = f"bring it back to where and what it was: hostler server revert {migration.server_id}"
    evacuate = f"hostler server evacuate {migration.server_id}"
    if migration.kind is MigrationKind.EVACUATION:
        return f"evacuate it again: {evacuate}; or, should its host be back, {back}"
    if _is_apart(migration):
        return (
            f"{back}; or, should the host that it came from be declared down, keep it as it is since the move: hostler "
            f"server confirm {migration.server_id}, or, if that is gone, build it elsewhere: {evacuate}"
        )
    if migration.kind in COLD:
        return f"{back}; or, should its host be declared down, build it elsewhere: {evacuate}"
    return back  # which finds out where the guest of a live migration is


def _is_apart(migration: Migration) -> bool:
    """Whether a resize or migration has got to another host: what the server was is not where it is."""
    return _has_got_there(migration) and migration.target_id != migration.source_id


def is_half_back(row: Server, migration: Migration) -> bool:
    """Whether a resize or migration waited to be decided on, and its revert was cut short: whether its target still
    has the guest no row tells.
    """
    return _has_got_there(migration) and row.vm_state is VmState.ERROR


def _has_got_there(migration: Migration) -> bool:
    return migration.kind in COLD and migration.status is MigrationStatus.FINISHED


def abandon_move(session: Session, row: Server, run_id: str) -> None:
    """Take back what `begin_move` of this run did to the database, if it did and the move got no further."""
    migration = session.get(Migration, run_id)
    if migration is None or migration.status is not MigrationStatus.MIGRATING:
        return
    lock_hosts(session, row.id)
    migration.status = MigrationStatus.ERROR
    restore_former(session, row.id, migration.source_id)
    count(row, Flavor.model_validate(row.flavor))
    if row.vm_state is VmState.RESIZED:
        _await_decision(session, row)
    else:
        give_up_formers(session, row, run_id)


def _await_decision(session: Session, row: Server) -> None:
    """The move that an evacuation had confirmed waits again: what the server was before it is there still."""
    query = select(Migration).where(Migration.server_id == row.id, col(Migration.status) == MigrationStatus.CONFIRMED)
    migration = session.exec(query.order_by(col(Migration.created_at).desc())).first()
    if migration is not None:
        migration.status = MigrationStatus.FINISHED
        count(row, Flavor.model_validate(migration.old_flavor), Flavor.model_validate(migration.new_flavor))


def give_up_former(session: Session, row: Server, run_id: str, host_id: str, *, stays: str | None) -> None:
    """The host owes the removal of what the server was there, and the former allocation is given back. On the host on
    which it `stays` its ports stay too. The caller holds the host's row.
    """
    ref = ServerRef(server_id=row.id, run_id=run_id)
    owe(session, row, run_id, host_id, Guests.drop_former_guest, ref)
    if host_id != stays:
        ports = list(session.exec(select(Port.id).where(Port.server_id == row.id)).all())
        owe(session, row, run_id, host_id, HostPorts.unbind_ports, PortIds(server_id=row.id, port_ids=ports))
    owe(session, row, run_id, host_id, Claims.drop_former_claim, ref)
    release_former(session, row.id, host_id)
    count(row, Flavor.model_validate(row.flavor))


def give_up_formers(session: Session, row: Server, run_id: str) -> None:
    """The same wherever the server has a former allocation; it stays where it is."""
    for host_id in former_hosts(session, row.id):
        give_up_former(session, row, run_id, host_id, stays=row.host_id)


def owe(
    session: Session,
    row: Server,
    run_id: str,
    host_id: str,
    work: Callable[..., object],
    argument: BaseModel,
    *,
    reason: str | None = None,
) -> None:
    """Write down what a host is to do, of an evacuation unless there is another `reason`. The caller holds its row."""
    owed = OwedWork(
        id=str(uuid5(NAMESPACE_URL, f"{run_id}/{host_id}/{work.__name__}")),
        host_id=host_id,
        server_id=row.id,
        activity=work.__name__,
        argument=argument.model_dump(mode="json"),
        reason=reason or f"it was declared down, and server {row.name} is built elsewhere",
    )
    enter_owed(session, owed)


def end_migrations(session: Session, server_id: str, status: MigrationStatus) -> None:
    """Whatever move of the server is open is over."""
    query = select(Migration).where(Migration.server_id == server_id, col(Migration.status).in_(OPEN_MIGRATIONS))
    for migration in session.exec(query):
        migration.status, migration.confirms_at = status, None


def restore_devices(session: Session, migration: Migration) -> None:
    """The server's disks are those of before its move."""
    session.exec(delete(BlockDevice).where(col(BlockDevice.server_id) == migration.server_id))
    session.flush()
    for device in migration.old_devices:
        session.add(BlockDevice.model_validate(device))


def count(row: Server, *flavors: Flavor) -> None:
    """Let the server count against its quota as the largest of these flavors."""
    row.vcpus = max(flavor.vcpus for flavor in flavors)
    row.ram_mib = max(flavor.ram_mib for flavor in flavors)


def wear(row: Server, flavor: Flavor) -> None:
    """The server is of this flavor."""
    row.flavor, row.flavor_id, row.flavor_name = flavor.model_dump(mode="json"), flavor.id, flavor.name
