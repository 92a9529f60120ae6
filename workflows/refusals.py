"""What a run answers to calls that it does not take."""

from activities.interfaces.servers import Target
from hostler.contract.errors import Conflict, InvalidState, NotFound, ServerBusy
from hostler.contract.servers import Choice, Hold, OperationCall, OperationName, Progress, StepStatus


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


def holds_not(operation: OperationName, progress: Progress) -> InvalidState:
    """There is nothing to decide."""
    running = [step.name for step in progress.steps if step.status is StepStatus.RUNNING]
    where = f", it is at {', '.join(running)}" if running else ""
    return InvalidState(
        f"the {operation} of server {progress.server_id} does not hold{where}",
        field="server",
        value=progress.server_id,
        remedy="see those that do: hostler operation list --held",
    )


def already_decided(progress: Progress) -> InvalidState:
    """Somebody was faster, or the hold has ended."""
    return InvalidState(
        f"somebody has just decided on the operation of server {progress.server_id}",
        field="server",
        value=progress.server_id,
        remedy=f"see what it does now: hostler server follow {progress.server_id}",
    )


def choice_makes_no_sense(choice: Choice, hold: Hold) -> InvalidState:
    """The step at which it holds does not leave that choice."""
    why = {
        Choice.MOVE: "another host would not help, or the guest may still be running on this one",
        Choice.RETRY: "it cannot be repeated",
        Choice.GIVE_UP: "there is no way back",
    }[choice]
    return InvalidState(
        f"{choice} makes no sense for a {hold.operation} that holds at {hold.step}: {why}",
        field="choice",
        value=choice,
        remedy=f"choose one of: {', '.join(hold.choices)}",
    )


def not_on_its_way(server_id: str) -> InvalidState:
    """There is no migration to hasten."""
    return InvalidState(
        "the guest is not on its way to another host now",
        field="server",
        value=server_id,
        remedy=f"see what its operation does: hostler server follow {server_id}",
    )


def no_move(target: Target) -> InvalidState:
    """There is nothing to confirm or to revert."""
    return InvalidState(
        f"server {target.name} was neither resized nor migrated, or that is over",
        field="server",
        value=target.server_id,
        remedy=f"see what was done to it: hostler server events {target.server_id}",
    )
