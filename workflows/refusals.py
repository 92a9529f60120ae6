"""What a run answers to calls that it does not take."""

from hostler.contract.errors import Conflict, NotFound, ServerBusy
from hostler.contract.servers import OperationCall, OperationName, Progress, StepStatus


def other_request(call: OperationCall) -> Conflict:
    """The UUID belongs to a build that was asked for in other words."""
    return Conflict(
        f"server {call.server_id} is already being built from another request",
        field="server_id",
        value=call.server_id,
        remedy="choose another UUID, or repeat the very same request to join it",
    )


def not_theirs(call: OperationCall) -> NotFound:
    """The server is another project's, of which this one must learn nothing."""
    return NotFound(
        f"no server {call.server_id} in project {call.project}",
        field="server",
        value=call.server_id,
        remedy="see: hostler server list",
    )


def busy(operation: OperationName, progress: Progress) -> ServerBusy:
    """Another operation runs; names it and where it is."""
    running = [step.name for step in progress.steps if step.status is StepStatus.RUNNING]
    where = f" (at {', '.join(running)})" if running else ""
    return ServerBusy(
        f'server {progress.server_id} is busy running "{operation}"{where}',
        field="server_id",
        value=progress.server_id,
        remedy=f"wait for it (hostler server follow {progress.server_id}), or delete the server",
    )
