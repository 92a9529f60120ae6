"""Drain a host: keep new servers off it, and move those that it has to others.

| step | where | undo |
|---|---|---|
| plan_drain | control: the host is disabled, with the reason | - : it stays so, until somebody enables it |
| servers_of_host | control: again until none is left that has not been tried | - |
| next_move, then an operation, for each server, `parallel` at a time | control: live-migrate; migrate and confirm-resize; shelve-offload | the operation's own |

It ends at the first server that cannot be moved, unless it may skip such; operations under way come to their end. So it
does when the host is enabled, or falls silent. Cancelling it cancels them. Volumes that the host keeps stay on it: the
result has those that servers use.
"""  # noqa: E501 - a table

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.host_work import HostWork
from hostler.contract.host_work import DRAIN_HOST, DrainRequest, DrainResult
from workflows.host_outcome import outcome_of
from workflows.host_work import ServersOfHost
from workflows.steps import CONTROL_RETRY, QUICK_STEP


@workflow.defn(name=DRAIN_HOST)
class DrainHost(ServersOfHost):
    """See the table above."""

    @workflow.init
    def __init__(self, request: DrainRequest) -> None:
        super().__init__(request.host_id, request.request_id, f"drain of host {request.host_id}")
        self.skip = request.skip

    @workflow.run
    async def run(self, request: DrainRequest) -> DrainResult:
        """Drain the host."""
        try:
            plan = await workflow.execute_activity_method(
                HostWork.plan_drain, request, start_to_close_timeout=QUICK_STEP, retry_policy=CONTROL_RETRY
            )
        except (ActivityError, asyncio.CancelledError) as failure:
            raise await self.refuse(failure) from None
        self.title, self.patience = f"drain of host {plan.host.name}", plan.patience
        self.state.volumes = plan.volumes
        self.accept(plan.host)
        self.stage("moves the servers")
        with self.to_its_end():
            while not self.state.stopped and (servers := await self.servers()):
                await self.each(servers, plan.parallel)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return DrainResult(volumes=self.state.volumes, **outcome_of(self.state))
