"""Makes sure that a host is off, and says so: the first part of workflows/host_failure.py."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.interfaces.host_watch import HostWatch
from activities.interfaces.host_work import FailurePlan, HostWork
from hostler.contract.calls import DECLARE_DOWN, HostDown
from hostler.contract.errors import HostlerError, InvalidState, Unavailable
from hostler.contract.host_work import HostFailureRequest
from workflows.failures import judge
from workflows.host_work import ServersOfHost
from workflows.steps import CONTROL_RETRY, DEFECTS, QUICK_STEP

FORCED_BY_JOINING = "host-failure-forced-by-joining"
ASK = timedelta(minutes=2)
"""The time-out of asking the host itself."""
FENCE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2),
    maximum_interval=timedelta(seconds=20),
    maximum_attempts=3,
    non_retryable_error_types=DEFECTS,
)
FENCE_SILENCE = timedelta(seconds=20)
BETWEEN = timedelta(seconds=2)


class FencingWork(ServersOfHost):
    """Work on a host that must be off. `fenced`: that was seen to; `registered_at`: the last time before."""

    fenced = False
    registered_at: datetime | None = None

    async def is_back(self, plan: FailurePlan) -> bool:
        """Whether the host is heard, by its heartbeats or when it is asked."""
        self.stage("asks the host whether it is there")
        return plan.back or await workflow.execute_activity_method(
            HostWatch.host_answers, plan.host, start_to_close_timeout=ASK, retry_policy=CONTROL_RETRY
        )

    async def make_sure(self, plan: FailurePlan, request: HostFailureRequest) -> bool:
        """See to it that the host is off, and say so; False if it has come back meanwhile."""
        self.fenced = plan.fenced
        if plan.declared:
            return True
        forced = request.force or (self.force and workflow.patched(FORCED_BY_JOINING))
        if not forced and not await self._fence(plan):
            return False
        self.stage("declares the host down")
        until = workflow.now() + plan.settle
        while (refusal := await self._declare_down(plan)) is not None:
            if not self.fenced or await self._has_registered(request):
                return False
            if workflow.now() >= until:
                raise await self._heard_all_the_same(plan, refusal)
            await workflow.sleep(BETWEEN, summary="its last heartbeats are still about")
        return True

    async def _declare_down(self, plan: FailurePlan) -> HostlerError | None:
        """None when it is; else the refusal, since it seems to be up."""
        reason = "it was fenced" if self.fenced else "an operator says that it is off"
        try:
            await workflow.execute_activity(
                DECLARE_DOWN.name,
                HostDown(ref=plan.host.id, reason=reason, fenced=self.fenced),
                result_type=DECLARE_DOWN.result,
                start_to_close_timeout=QUICK_STEP,
                retry_policy=CONTROL_RETRY,
            )
        except ActivityError as failure:
            error = judge(failure, host=None).error
            if not isinstance(error, InvalidState):
                raise
            return error
        return None

    async def _has_registered(self, request: HostFailureRequest) -> bool:
        """Whether the host has returned since it was fenced: heartbeats say nothing, they may be older."""
        if self.registered_at is None:  # a control worker of an older version has fenced it
            return True
        now = await workflow.execute_activity_method(
            HostWork.plan_failure, request, start_to_close_timeout=QUICK_STEP, retry_policy=CONTROL_RETRY
        )
        return now.registered_at != self.registered_at

    async def _heard_all_the_same(self, plan: FailurePlan, refusal: HostlerError) -> BaseException:
        """The end of the workflow, for a person to look at."""
        error = Unavailable(
            f"host {plan.host.name} was fenced, and is heard all the same: {refusal}",
            field="host",
            value=plan.host.id,
            remedy="see whether the fence command powers the right machine off",
        )
        self.stop(str(error))
        workflow.logger.error("%s", error)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return error.to_application_error()

    async def _fence(self, plan: FailurePlan) -> bool:
        """False if the host is back. If it fails that ends the workflow, unless somebody says that the host is off."""
        self.stage("fences the host")
        try:
            fencing = await workflow.execute_activity_method(
                HostWatch.fence_host,
                plan.host,
                start_to_close_timeout=plan.fence_timeout + FENCE_SILENCE,
                heartbeat_timeout=FENCE_SILENCE,
                retry_policy=FENCE_RETRY,
                summary=plan.host.name,
            )
        except ActivityError as failure:
            if is_cancelled_exception(failure):
                raise
            error = judge(failure, host=None).error
            workflow.logger.error("host %s is silent and could not be fenced: %s", plan.host.name, error)
            if self.force:  # of whoever joined meanwhile
                return True
            self.stop(f"it is not known whether the host is off: {error}")
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise error.to_application_error() from None
        self.fenced, self.registered_at = not fencing.back, fencing.registered_at
        return self.fenced
