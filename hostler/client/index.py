"""Temporal's index of the operations that run: how it is asked, and what it says."""

from temporalio.client import WorkflowExecution

from hostler.contract.names import (
    ATTEMPT,
    HELD,
    HOST,
    OVERDUE,
    PROJECT,
    SERVER_NAME,
    STEP,
    server_workflow_id,
)
from hostler.contract.servers import OperationName, RunningOperation


def running_filter(project: str | None, held: bool | None, overdue: bool | None) -> str:
    """The list filter for running operations; None is any."""
    parts = ["ExecutionStatus = 'Running'", f"WorkflowType IN ({', '.join(map(_quoted, OperationName))})"]
    if project is not None:
        parts.append(f"{PROJECT.name} = {_quoted(project)}")
    for key, wanted in ((HELD, held), (OVERDUE, overdue)):
        if wanted is not None:
            parts.append(f"{key.name} = true" if wanted else f"({key.name} = false OR {key.name} IS NULL)")
    return " AND ".join(parts)


def running_operation(execution: WorkflowExecution) -> RunningOperation:
    """What the index says of an operation."""
    attributes = execution.typed_search_attributes
    return RunningOperation(
        operation=OperationName(execution.workflow_type),
        server_id=server_of(execution),
        server_name=attributes.get(SERVER_NAME),
        project=attributes.get(PROJECT, ""),
        run_id=execution.run_id,
        step=attributes.get(STEP),
        attempt=attributes.get(ATTEMPT, 1),
        host=attributes.get(HOST),
        held=attributes.get(HELD, False),
        overdue=attributes.get(OVERDUE, False),
        started_at=execution.start_time,
    )


def server_of(execution: WorkflowExecution) -> str:
    """The UUID of the server that an operation is on."""
    return execution.id.removeprefix(server_workflow_id(""))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
