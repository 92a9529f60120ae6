"""What activities of the control plane ask of Temporal: which runs are open, and, over it, what a host has."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from temporalio.client import ActivityFailureError, Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import RetryPolicy
from temporalio.exceptions import TimeoutError, TimeoutType
from temporalio.service import RPCError, RPCStatusCode

from activities.interfaces.guests import ExpectGuest, Guests
from activities.interfaces.holdings import Holdings, HoldingsQuery, HostHoldings
from activities.interfaces.servers import HostRef
from hostler.client.progress import pending_activities
from hostler.contract.errors import Unavailable
from hostler.contract.names import host_queue
from hostler.contract.states import PowerState

CALLS_AT_ONCE = 16
LISTING = timedelta(seconds=30)
"""How long a host may take to say what it has."""
GLANCE = timedelta(seconds=10)
"""How long it may take to look for one guest: the step of an operation waits for it."""


@dataclass(frozen=True)
class Temporal:
    """Questions to Temporal. `host_answer` is until a host's worker must have taken one."""

    client: Client
    host_answer: timedelta

    async def open_runs(self, workflow_ids: Iterable[str]) -> dict[str, WorkflowExecutionDescription]:
        """Those of the workflows that run now, with the run. Each is asked for: the list of workflows lags behind."""
        turns = asyncio.Semaphore(CALLS_AT_ONCE)

        async def ask(workflow_id: str) -> WorkflowExecutionDescription | None:
            async with turns:
                return await self._describe(workflow_id)

        ids = sorted(set(workflow_ids))
        found = zip(ids, await asyncio.gather(*map(ask, ids)), strict=True)
        return {one: run for one, run in found if run and run.status is WorkflowExecutionStatus.RUNNING}

    async def _describe(self, workflow_id: str) -> WorkflowExecutionDescription | None:
        try:
            return await self.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def failing(self, workflow_id: str, run_id: str) -> list[str]:
        """What of a run has failed and is tried again, each with its last failure."""
        run = await self.client.get_workflow_handle(workflow_id, run_id=run_id).describe()
        return [
            f"{one.type} failed {one.attempt - 1} times: {one.error}"
            for one in await pending_activities(run, run.data_converter)
            if one.error
        ]

    async def listed(self, query: str) -> AsyncIterator[str]:
        """The IDs of the workflows that the list of workflows has for a query; as of some moments ago."""
        async for one in self.client.list_workflows(query):
            yield one.id

    async def terminate(self, workflow_id: str, reason: str) -> None:
        """End the workflow by force, if it runs: nothing that it has asked for and that nobody has begun is done."""
        try:
            await self.client.get_workflow_handle(workflow_id).terminate(reason=reason)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def holdings(self, host: HostRef) -> Holdings:
        """What the host has. It is asked directly, so that its answer fills no history.

        Raises:
            Unavailable: it does not say.
        """
        try:
            holdings = await self._ask(host, LISTING, tries=2, why=f"what {host.name} has")
        except ActivityFailureError as failure:
            cause = failure.cause
            reason = "does not answer" if isinstance(cause, TimeoutError) else f"does not say what it has: {cause}"
            raise Unavailable(f"host {host.name} {reason}", field="host", value=host.id) from failure
        if holdings.host_id != host.id:
            raise Unavailable(
                f"who answers for host {host.name} is host {holdings.host_id}", field="host", value=host.id
            )
        return holdings

    async def has_none(self, host: HostRef, call: ExpectGuest) -> bool:
        """Whether the host says that it has no such guest; False also when it does not say."""
        try:
            found: PowerState = await self.client.execute_activity(
                Guests.expect_guest.__name__,
                call.model_copy(update={"may_be_gone": True}),
                id=f"{Guests.expect_guest.__name__}:{uuid4()}",
                task_queue=host_queue(host.id),
                result_type=PowerState,
                schedule_to_start_timeout=min(self.host_answer, GLANCE),
                schedule_to_close_timeout=GLANCE,
                retry_policy=RetryPolicy(maximum_attempts=2),
                summary=f"has {host.name} a guest of {call.server_id}?",
            )
        except ActivityFailureError:
            return False
        return found is PowerState.NOSTATE

    async def answers(self, host: HostRef) -> bool:
        """Whether the host's worker takes a question, be it that it has no answer."""
        try:
            await self._ask(host, 2 * self.host_answer, tries=1, why=f"is {host.name} there?")
        except ActivityFailureError as failure:
            cause = failure.cause
            return not (isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START)
        return True

    async def _ask(self, host: HostRef, limit: timedelta, *, tries: int, why: str) -> Holdings:
        answer: Holdings = await self.client.execute_activity(
            HostHoldings.list_holdings.__name__,
            HoldingsQuery(),
            id=f"{HostHoldings.list_holdings.__name__}:{uuid4()}",
            task_queue=host_queue(host.id),
            result_type=Holdings,
            schedule_to_start_timeout=self.host_answer,
            schedule_to_close_timeout=limit,
            retry_policy=RetryPolicy(maximum_attempts=tries),
            summary=why,
        )
        return answer
