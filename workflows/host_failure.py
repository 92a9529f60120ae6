"""The failure of a host: make sure that it is off, and have its servers built elsewhere.

| step | where | undo |
|---|---|---|
| plan_failure | control | - |
| host_answers | control, which asks the host itself: one that answers is left alone | - |
| fence_host | control: the operator's command, some times; not where an operator says that the host is off, nor where it is declared down already | - |
| declare_down | control: from here on its servers may be evacuated; again while late heartbeats are about | the host's registration |
| servers_of_host | control: those of the policy, or all; higher priorities first; again until none is new | - |
| next_move, then an operation, for each server, `parallel` at a time | control: evacuate; shelve-offload | the operation's own |

A host that is heard before it was fenced is left alone. Where fencing fails nothing is evacuated. What cannot be
evacuated is listed in the result; asked again, it is tried again. An operator may join at any time what the watch began:
then it goes on with all servers, and his word that the host is off counts until it is fenced, also when that has failed.
"""  # noqa: E501 - a table

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.host_work import FailurePlan, HostWork
from hostler.contract.errors import HostlerError, InvalidState
from hostler.contract.host_work import HOST_FAILURE, HostFailureRequest, HostFailureResult
from hostler.contract.servers import OnFailure
from workflows.fencing import FencingWork
from workflows.host_outcome import outcome_of
from workflows.steps import CONTROL_RETRY, QUICK_STEP

LISTS_AGAIN = "host-failure-lists-again"


@workflow.defn(name=HOST_FAILURE)
class HostFailure(FencingWork):
    """See the table above."""

    evacuation = True
    on_failure = OnFailure.GIVE_UP  # one that waited for a decision would have the place of others

    @workflow.init
    def __init__(self, request: HostFailureRequest) -> None:
        super().__init__(request.host_id, request.request_id, f"failure of host {request.host_id}")
        self.everything, self.force = not request.automatic, request.force

    @workflow.run
    async def run(self, request: HostFailureRequest) -> HostFailureResult:
        """Evacuate the host."""
        try:
            plan = await workflow.execute_activity_method(
                HostWork.plan_failure, request, start_to_close_timeout=QUICK_STEP, retry_policy=CONTROL_RETRY
            )
            self.title, self.patience = f"failure of host {plan.host.name}", plan.patience
            self.state.host = plan.host.name
            back = await self.is_back(plan)
            if back and not request.automatic:
                raise _is_up(plan)
        except (ActivityError, HostlerError, asyncio.CancelledError) as failure:
            raise await self.refuse(failure) from None
        self.accept(plan.host)
        with self.to_its_end():
            if back or not await self.make_sure(plan, request):
                self.stop("it has come back, and is left alone")
            else:
                self.stage("evacuates the servers")
                await self.each(await self.servers(by_policy=not self.everything), plan.parallel)
                await self._again(plan)
        await workflow.wait_condition(workflow.all_handlers_finished)
        self._report()
        return HostFailureResult(fenced=self.fenced, **outcome_of(self.state))

    async def _again(self, plan: FailurePlan) -> None:
        """Those too that have come meanwhile: a live migration that was handed over ends where it was going.

        And those of no policy, once an operator has joined, be it while the last were listed.
        """
        while workflow.patched(LISTS_AGAIN) and not self.state.stopped:
            everything = self.everything
            servers = await self.servers(by_policy=not everything)
            if not servers and everything == self.everything:
                return
            await self.each(servers, plan.parallel)

    def _report(self) -> None:
        """Tell the log, too, of what could not be evacuated."""
        host = self.state.host
        for server in self.state.servers:
            if server.reason:
                workflow.logger.warning("host %s: server %s is not evacuated: %s", host, server.name, server.reason)


def _is_up(plan: FailurePlan) -> InvalidState:
    return InvalidState(
        f"host {plan.host.name} answers, so its servers run there",
        field="host",
        value=plan.host.name,
        remedy=f"move them while it is there: hostler host drain {plan.host.name}; or power it off, and wait until "
        "hostler host list has it as down",
    )
