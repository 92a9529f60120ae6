"""A workflow has an operation done on a server, as a client would, and learns how it ends."""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ChildWorkflowError,
    TerminatedError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

from hostler.contract.attributes import operation_attributes
from hostler.contract.errors import Cancelled, HostlerError, OperationFailed, ServerBusy
from hostler.contract.host_work import ServerMove
from hostler.contract.names import CONTROL_QUEUE, server_workflow_id
from hostler.contract.servers import (
    ConfirmResizeRequest,
    EvacuateRequest,
    LiveMigrateRequest,
    MigrateRequest,
    OnFailure,
    OperationName,
    OperationRequest,
    Server,
    ShelveOffloadRequest,
)
from workflows.failures import judge

REQUESTS: dict[OperationName, tuple[type[OperationRequest], dict[str, Any]]] = {
    OperationName.LIVE_MIGRATE: (LiveMigrateRequest, {}),
    OperationName.MIGRATE: (MigrateRequest, {"confirm_after": timedelta(0)}),
    OperationName.CONFIRM_RESIZE: (ConfirmResizeRequest, {}),
    OperationName.SHELVE_OFFLOAD: (ShelveOffloadRequest, {}),
    OperationName.EVACUATE: (EvacuateRequest, {}),
}


async def operate(operation: OperationName, server: ServerMove, by: str, on_failure: OnFailure | None) -> Server:
    """Have the operation done; a cancellation cancels it, and waits for its end.

    `on_failure` None is the control worker's setting.

    Raises:
        ServerBusy: not now. HostlerError: why it failed, or was refused.
    """
    kind, options = REQUESTS[operation]
    request = kind(
        server_id=server.server_id,
        request_id=str(workflow.uuid4()),
        project=server.project,
        on_failure=on_failure,
        **options,
    )
    try:
        result: Server = await workflow.execute_child_workflow(
            operation.value,
            request,
            id=server_workflow_id(server.server_id),
            task_queue=CONTROL_QUEUE,
            result_type=Server,
            # Who terminates the whole by force leaves none of the servers half-way.
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            search_attributes=operation_attributes(operation, request, server.name),
            static_summary=f"{operation} {server.name}, {by}",
        )
    except WorkflowAlreadyStartedError as error:
        raise ServerBusy(f"another operation runs on server {server.name}") from error
    except ChildWorkflowError as error:
        raise _why(operation, error) from error
    return result


def _why(operation: OperationName, failure: ChildWorkflowError) -> HostlerError:
    if is_cancelled_exception(failure):
        return Cancelled(f"the {operation} was cancelled")
    if isinstance(failure.cause, TerminatedError):
        return OperationFailed(f"the {operation} was terminated")
    return judge(failure.cause or failure, host=None).error
