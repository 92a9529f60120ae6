"""The compare-and-set by which an operation takes a server's row."""

from sqlmodel import Session

from activities.interfaces.servers import Begin
from hostler.contract.errors import InvalidState, NotFound, ServerBusy
from hostler.contract.servers import OperationName
from hostler.contract.states import status
from models import Server

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
            remedy="look at that run in the Temporal UI; a delete takes the server over",
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
    row.operation_id, row.task_state, row.hold = call.run_id, call.task_state, None
    return row


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
