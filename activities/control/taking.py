"""The compare-and-set by which an operation takes a server's row."""

from collections.abc import Callable

from sqlmodel import Session, col, select

from activities.control.migrations import open_migration, out_of_move, ways_out
from activities.interfaces.block_devices import HostVolumes
from activities.interfaces.guests import Guests
from activities.interfaces.servers import Begin
from hostler.contract.errors import InvalidState, NotFound, ServerBusy
from hostler.contract.servers import MigrationKind, OperationName
from hostler.contract.states import VmState, status
from models import Host, OwedWork, Server, ServerEvent, bump_generation, forget_start

DESPITE_OWED_WORK = (OperationName.DELETE, OperationName.SHELVE_OFFLOAD, OperationName.EVACUATE)
"""The operations to which what the host still owes is no harm: they only remove, or go away from a host that is off."""
WITHOUT_HOST = (OperationName.DELETE, OperationName.UNSHELVE)
"""The operations on a server that needs no host."""


def take(session: Session, call: Begin) -> Server:
    """The server's row, locked, and from now on the run's.

    Raises:
        NotFound, InvalidState, ServerBusy
    """
    row = session.get(Server, call.server_id, with_for_update=True)
    if row is None or row.deleted_at is not None or row.project != call.project:
        raise NotFound(
            f"no server {call.server_id} in project {call.project}",
            field="server",
            value=call.server_id,
            remedy="see: hostler server list",
        )
    if row.operation_id not in (None, call.run_id) and call.operation is not OperationName.DELETE:
        raise ServerBusy(
            f"server {row.name} is still held by run {row.operation_id}, which did not settle it",
            field="server",
            value=row.id,
            remedy="look at that run in the Temporal UI: if it was terminated, the audit gives the server back "
            "after a while, once its host answers or is declared down (hostler audit --heal); a delete takes it over",
        )
    if row.vm_state not in call.allowed:
        wanted = " or ".join(status(state, None) for state in call.allowed)
        raise InvalidState(
            f"server {row.name} is {status(row.vm_state, row.task_state)}; to {call.operation} it must be {wanted}",
            field="server",
            value=row.id,
            remedy=f"bring it there first, or see what it is doing: hostler server events {row.id}",
        )
    if row.host_id is None and call.operation not in WITHOUT_HOST:
        raise InvalidState(
            f"server {row.name} is on no host, so there is nothing to {call.operation}",
            field="server",
            value=row.id,
            remedy="delete it, and boot another",
        )
    if row.operation_id != call.run_id and _is_over(session, call):
        raise InvalidState(f"run {call.run_id} has given server {row.name} back already")  # this try comes too late
    if row.operation_id != call.run_id and call.operation not in DESPITE_OWED_WORK:
        _check_owed(session, row, _asked(session, row, call), call)
    in_error = row.vm_state is VmState.ERROR and call.operation is not OperationName.DELETE
    if in_error:
        _check_move(session, row, call)
    if in_error or call.operation is OperationName.EVACUATE:
        _check_guests_elsewhere(session, row, Guests.stop_guest, Guests.destroy_guest)
    elif call.operation is OperationName.UNSHELVE:  # a guest that is only to be removed was off when it was shelved
        _check_guests_elsewhere(session, row, Guests.stop_guest)
    row.operation_id, row.task_state, row.hold = call.run_id, call.task_state, None
    return row


def _is_over(session: Session, call: Begin) -> bool:
    """Whether the server's history has the run, which writes it when it gives the server back."""
    query = select(ServerEvent.id).where(ServerEvent.server_id == call.server_id, ServerEvent.run_id == call.run_id)
    return session.exec(query).first() is not None


def _asked(session: Session, row: Server, call: Begin) -> set[str | None]:
    """The hosts that the operation asks."""
    migration = open_migration(session, row.id) if call.operation is OperationName.REVERT_RESIZE else None
    if migration is None:
        return {row.host_id}
    hosts = {row.host_id, migration.source_id}
    # A live migration's source that never returns is asked for nothing: what it owes then comes after what it owes now.
    live = migration.kind is MigrationKind.LIVE_MIGRATION
    if (live or row.host_id != migration.source_id) and _stays_off(session, row):
        return hosts - {row.host_id}
    return hosts


def _stays_off(session: Session, row: Server) -> bool:
    """Whether the server's host was declared down; if so it no longer owes that the guest runs, as a revert before
    may have left it to do.
    """
    assert row.host_id is not None
    bump_generation(session, row.host_id)  # it may be registering at this moment
    down = session.get_one(Host, row.host_id).down_since is not None
    if down:
        forget_start(session, row.id, row.host_id)
    return down


def _check_owed(session: Session, row: Server, hosts: set[str | None], call: Begin) -> None:
    """What these hosts have yet to do for an operation before could undo what the next one does there.

    Raises:
        ServerBusy: there is such work.
    """
    volumes = [HostVolumes.withdraw_volume.__name__] if call.operation is OperationName.UNSHELVE else []
    concerns = col(OwedWork.host_id).in_(hosts - {None}) | col(OwedWork.activity).in_(volumes)
    query = select(Host.name, OwedWork.activity).join(OwedWork, col(OwedWork.host_id) == Host.id)
    found = session.exec(query.where(OwedWork.server_id == row.id, concerns)).first()
    if found is not None:
        host, activity = found
        raise ServerBusy(
            f"host {host} has yet to do {activity} of server {row.name}, which an operation before has left to it",
            field="server",
            value=row.id,
            remedy=f"it does so within seconds of being up: hostler host show {host}",
        )


def _check_move(session: Session, row: Server, call: Begin) -> None:
    """What may be done to a server in error, beyond what its state allows.

    Raises:
        InvalidState: a move of it was cut short.
    """
    migration = open_migration(session, row.id)
    if migration is not None and call.operation not in ways_out(session, migration):
        raise InvalidState(
            f"a move of server {row.name} was cut short: it is neither where it was nor where it was to be",
            field="server",
            value=row.id,
            remedy=out_of_move(migration),
        )


def _check_guests_elsewhere(session: Session, row: Server, *works: Callable[..., object]) -> None:
    """A server in error may have such a guest. So may, in any state, one that was evacuated before: a host that was
    declared down may have come back, and not yet have removed its own. And so may one on the shelf whose start on its
    host failed, before that lost it.

    Args:
        works: what a host owes that has one.

    Raises:
        InvalidState: there may be one that runs.
    """
    owing = select(Host.name).join(OwedWork, col(OwedWork.host_id) == Host.id)
    owing = owing.where(OwedWork.server_id == row.id, col(OwedWork.activity).in_([work.__name__ for work in works]))
    # What comes back from being declared down removes it first.
    host = session.exec(owing.where(Host.id != row.host_id, col(Host.down_since).is_(None))).first()
    if host is not None:
        raise InvalidState(
            f"a guest of server {row.name} may be running on host {host}, which has yet to remove it",
            field="server",
            value=row.id,
            remedy=f"it does so when it is back: hostler host show {host}; if it is off for sure: "
            f"hostler host declare-down {host} --reason ...",
        )


def held(session: Session, server_id: str, run_id: str) -> tuple[Server, bool]:
    """The server's row, locked, and whether the run still holds it.

    Raises:
        NotFound: there is no such row.
    """
    row = session.get(Server, server_id, with_for_update=True)
    if row is None:
        raise NotFound(f"no server {server_id}", field="server", value=server_id)
    return row, row.operation_id == run_id


def let_go(row: Server) -> None:
    """No operation has the server any more."""
    row.operation_id, row.task_state, row.hold = None, None, None
