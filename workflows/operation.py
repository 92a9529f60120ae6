"""What every operation on a server shares: its course, its undo, and how it ends.

An operation is a run under the ID `server:<uuid>`; see docs/concepts.md.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities.interfaces.servers import Begin, EventLog, Servers, Settle, Target
from hostler.contract.errors import Cancelled, HostlerError, Preempted
from hostler.contract.servers import (
    DeleteRequest,
    OperationCall,
    OperationName,
    Server,
    Step,
    StepStatus,
)
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.contract.validation import check_operation
from workflows.concurrency import to_the_end
from workflows.failures import is_refusal
from workflows.front_door import FrontDoor, Request
from workflows.steps import Argument, Result, StepDefinition

BEGIN = StepDefinition[Begin, Target](Servers.begin)
SETTLE = StepDefinition[Settle, Server](Servers.settle)


class Operation(FrontDoor[Request]):
    """The base of the workflows; a subclass says what to do (`carry_out`) and how to give up (`give_up`)."""

    unbegun: ClassVar[VmState | None] = None
    """What the server is when the operation failed at its very beginning; None: what it was."""

    may_be_refused_late: ClassVar[bool] = False
    """Whether a try of the first step may be refused after one, whose answer was lost, has taken the row."""
    _sound = False
    _ended_by: HostlerError | None = None

    # The course of an operation.

    @abstractmethod
    async def carry_out(self) -> Server:
        """Do it. Calls `accept` once the request is known to be good."""

    @abstractmethod
    async def give_up(self, error: HostlerError) -> None:
        """Undo it after it was accepted, and settle the server."""

    async def conduct(self) -> Server:
        """Carry out; on failure, cancellation or pre-emption undo; then hand over or end."""
        self._main = asyncio.create_task(self._checked())
        try:
            server = await self._main
            self._watch.end()
            self.state.done = True
        except asyncio.CancelledError as cancelled:
            await self._end_with(self._why_cancelled(), cancelled)
        except (FailureError, HostlerError) as failure:
            await self._end_with(self.explain(failure), failure)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._preempted_by is not None:
            self._continue_as_delete(self._preempted_by)
        return server

    async def _checked(self) -> Server:
        """The client checks too, but it need not be ours."""
        check_operation(self.call)
        self._sound = True
        return await self.carry_out()

    async def _end_with(self, error: HostlerError, cause: BaseException) -> None:
        self.stopping, self._ended_by = True, error
        if self.accepted():
            await to_the_end(self.give_up(error))
        else:
            if self._sound and (self.may_be_refused_late or not is_refusal(cause)):
                await to_the_end(self._disown(error))
            self._verdict = error
        self._watch.end()
        self.state.done = True
        self.announce()
        await to_the_end(workflow.wait_condition(workflow.all_handlers_finished))
        if self._preempted_by is not None:
            self._continue_as_delete(self._preempted_by)
        if isinstance(error, Cancelled):
            raise cause
        raise error.to_application_error() from None

    async def _disown(self, error: HostlerError) -> None:
        """The first step failed, but it may have taken the row before that: give it back."""
        with suppress(ActivityError):  # there is no row
            await self.settle(self.unbegun, error=error)

    def _why_cancelled(self) -> HostlerError:
        if self._preempted_by is not None:
            return Preempted(f"server {self.call.server_id} was deleted during its {self.operation}")
        reason = workflow.cancellation_reason()
        return Cancelled(f"the {self.operation} was cancelled" + (f": {reason}" if reason else ""))

    def _continue_as_delete(self, call: OperationCall) -> None:
        request = DeleteRequest(
            server_id=call.server_id,
            request_id=call.request_id,
            project=self.call.project,
            on_failure=call.on_failure,
        )
        workflow.continue_as_new(workflow=OperationName.DELETE.value, args=[request])

    # What every operation asks of the server's row.

    async def unbroken(self, definition: StepDefinition[Argument, Result], argument: Argument) -> Result:
        """A step that nothing interrupts, since what became of the server's row must be known afterwards."""
        return await to_the_end(self.step(definition, argument, final=True))

    def begin(self, allowed: Sequence[VmState], task_state: TaskState) -> Begin:
        """The compare-and-set that takes the server."""
        return Begin(
            server_id=self.call.server_id,
            project=self.call.project,
            run_id=self.run_id,
            operation=self.operation,
            allowed=list(allowed),
            task_state=task_state,
        )

    async def settle(
        self,
        vm_state: VmState | None,
        *,
        power_state: PowerState | None = None,
        error: HostlerError | None = None,
        keeps_others: bool = False,
    ) -> Server:
        """Give the server back, with the operation's history; the last step of all."""
        events = self.event_log(SETTLE.name)
        if isinstance(self._ended_by, Cancelled):  # by whom, and why, no step says
            events.steps[-1].note = self._ended_by.detail.message
        call = Settle(
            server_id=self.call.server_id,
            run_id=self.run_id,
            vm_state=vm_state,
            power_state=power_state,
            error=error.detail if error else None,
            keeps_others=keeps_others,
            events=events,
        )
        return await to_the_end(self.must(SETTLE, call))

    def event_log(self, closing: str | None) -> EventLog:
        """The steps so far, for the server's history, with the `closing` one that writes them."""
        if closing is not None:
            self._watch.take_back()
        steps = [step.model_copy() for step in self.state.steps]
        if closing is not None:
            now, attempt = workflow.now(), self.state.attempt
            steps.append(Step(name=closing, status=StepStatus.DONE, attempt=attempt, started_at=now, finished_at=now))
        return EventLog(server_id=self.call.server_id, run_id=self.run_id, operation=self.operation, steps=steps)
