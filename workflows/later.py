"""Later: a durable timer at whose end an operation is asked for: a resize confirms itself, a shelved server offloads.

| step | where | undo |
|---|---|---|
| (timer) | - | - |
| ask_for_operation | control: again while the server is busy, and an hour later, until it is refused | - |

It ends when the operation makes no sense any more: because it was done, by whomever. A newer one for the same server
takes its place. Deleting the server does not need to know of it.
"""

from datetime import datetime, timedelta

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError

from activities.interfaces.later import Asking, LaterCall
from hostler.contract.errors import ServerBusy
from hostler.contract.names import later_workflow_id
from hostler.contract.servers import OperationName
from workflows.failures import is_refusal, judge
from workflows.steps import CONTROL_RETRY

LATER = "later"
GOES_ON_ANEW = "later-goes-on-anew"
BUSY_PAUSE, DONE_PAUSE = timedelta(seconds=30), timedelta(hours=1)
ASK = timedelta(minutes=2)
"""The time-out of asking: it returns once the operation is accepted."""


class LaterRequest(BaseModel):
    """Ask for the operation `at` this time, if it is still about `subject`: see `LaterCall`."""

    operation: OperationName
    server_id: str
    project: str
    subject: str
    at: datetime


@workflow.defn(name=LATER)
class Later:
    """See the table above."""

    @workflow.run
    async def run(self, request: LaterRequest) -> None:
        """Sleep, then ask."""
        workflow.set_current_details(f"asks for {request.operation} at {request.at:%Y-%m-%d %H:%M:%S} UTC")
        await workflow.sleep(max(timedelta(0), request.at - workflow.now()), summary=f"{request.operation}")
        attempt = 0
        while (pause := await self._ask(request, attempt)) is not None:
            await workflow.sleep(pause)
            attempt += 1
            # A server may be busy for weeks, and Temporal ends a run whose history has grown too long.
            if workflow.info().is_continue_as_new_suggested() and workflow.patched(GOES_ON_ANEW):
                workflow.continue_as_new(request)

    async def _ask(self, request: LaterRequest, attempt: int) -> timedelta | None:
        """How long to wait before it is asked for again; None: it is no longer wanted."""
        call = LaterCall(
            operation=request.operation,
            server_id=request.server_id,
            project=request.project,
            subject=request.subject,
            request_id=f"{workflow.info().run_id}-{attempt}",
        )
        try:
            await workflow.execute_activity_method(
                Asking.ask_for_operation,
                call,
                start_to_close_timeout=ASK,
                retry_policy=CONTROL_RETRY,
                summary=f"{request.operation} of {request.server_id}",
            )
        except ActivityError as failure:
            if not is_refusal(failure):
                raise
            return BUSY_PAUSE if isinstance(judge(failure, host=None).error, ServerBusy) else None
        return DONE_PAUSE


async def ask_later(operation: OperationName, server_id: str, *, project: str, subject: str, after: timedelta) -> None:
    """Have an operation asked for when the time is up; the workflow that says so may end before."""
    at = workflow.now() + after
    request = LaterRequest(operation=operation, server_id=server_id, project=project, subject=subject, at=at)
    await workflow.start_child_workflow(
        LATER,
        request,
        id=later_workflow_id(server_id),
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        id_reuse_policy=WorkflowIDReusePolicy.TERMINATE_IF_RUNNING,
        static_summary=f"{operation} of {server_id}, in {after}",
    )
