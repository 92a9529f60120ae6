"""What every operation on a server shares: its front door, its steps, its undo, and how it ends.

An operation is a run under the ID `server:<uuid>`; see docs/concepts.md. The update `request` is its front door: it
answers once the operation is accepted, joins a repeated call, lets a delete pre-empt, and refuses the rest.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.interfaces.servers import Begin, EventLog, Limits, Servers, Settle
from hostler.contract.errors import Cancelled, HostlerError, Preempted
from hostler.contract.fingerprint import fingerprint
from hostler.contract.servers import (
    Accepted,
    DeleteRequest,
    OperationCall,
    OperationName,
    OperationRequest,
    Server,
    Step,
    StepStatus,
    VifPlugged,
)
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.holding import Holder
from workflows.overdue import Watch
from workflows.refusals import busy, not_theirs, other_request
from workflows.steps import Argument, Result, StepDefinition

Request = TypeVar("Request", bound=OperationRequest)

SETTLE = StepDefinition[Settle, Server](Servers.settle)


class Operation(Holder, Generic[Request]):
    """The base of the workflows; a subclass says what to do (`carry_out`) and how to give up (`give_up`)."""

    call: Request

    def __init__(self, request: Request, planned: Sequence[str]) -> None:
        super().__init__(self.operation, request.server_id, planned)
        self.call = request
        self.plugged: set[tuple[str, str]] = set()
        self._verdict: Accepted | HostlerError | None = None
        self._preempted_by: OperationCall | None = None
        self._main: asyncio.Task[Server] | None = None
        self._watch = Watch(self)

    # The front door.

    @workflow.update(name="request")
    async def request(self, call: OperationCall) -> Accepted:
        """Accept the call, join it to the same one, or say what is in the way."""
        if call.project not in ("", self.call.project):
            raise not_theirs(call).to_application_error()
        if call.operation is self.operation and call.request_id == self.call.request_id:
            if call.fingerprint and call.fingerprint != fingerprint(self.call):
                raise other_request(call).to_application_error()
            await workflow.wait_condition(lambda: self._verdict is not None)
            if isinstance(self._verdict, HostlerError):
                raise self._verdict.to_application_error()
            assert self._verdict is not None
            return self._verdict
        if call.operation is OperationName.DELETE:
            await workflow.wait_condition(lambda: self._verdict is not None)
            return self._preempt(call)
        if call.operation is self.operation is OperationName.BOOT:
            raise other_request(call).to_application_error()
        raise busy(self.operation, self.state).to_application_error()

    @workflow.signal(name="vif_plugged")
    def vif_plugged(self, event: VifPlugged) -> None:
        """A host saw a port come up; early ones count."""
        self.plugged.add((event.port_id, event.host_id))

    def _preempt(self, call: OperationCall) -> Accepted:
        if self.operation is not OperationName.DELETE:
            self._preempted_by = self._preempted_by or call
            if self._main is not None:
                self._main.cancel()
        return Accepted(
            operation=OperationName.DELETE,
            server_id=self.call.server_id,
            run_id=self.run_id,
            preempts=None if self.operation is OperationName.DELETE else self.operation,
        )

    def stop_asked(self) -> bool:
        """Whether the operation was cancelled or pre-empted."""
        return self._preempted_by is not None or super().stop_asked()

    # The course of an operation.

    @abstractmethod
    async def carry_out(self) -> Server:
        """Do it. Calls `accept` once the request is known to be good."""

    @abstractmethod
    async def give_up(self, error: HostlerError) -> None:
        """Undo it after it was accepted, and settle the server."""

    def accept(self, limits: Limits, title: str, run_id: str | None = None) -> None:
        """From here on, whoever asked knows that it will be carried through or undone."""
        self.limits, self.title = limits, title
        self._verdict = Accepted(operation=self.operation, server_id=self.call.server_id, run_id=run_id or self.run_id)
        self._watch.begin(limits.overdue)

    def accepted(self) -> bool:
        """Whether `accept` was called."""
        return isinstance(self._verdict, Accepted)

    async def conduct(self) -> Server:
        """Carry out; on failure, cancellation or pre-emption undo; then hand over or end."""
        self._main = asyncio.create_task(self.carry_out())
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

    async def _end_with(self, error: HostlerError, cause: BaseException) -> None:
        self.stopping = True
        if self.accepted():
            await to_the_end(self.give_up(error))
        else:
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

    def _why_cancelled(self) -> HostlerError:
        if self._preempted_by is not None:
            return Preempted(f"server {self.call.server_id} was deleted during its {self.operation}")
        reason = workflow.cancellation_reason()
        return Cancelled(f"the {self.operation} was cancelled" + (f": {reason}" if reason else ""))

    def _continue_as_delete(self, call: OperationCall) -> None:
        request = DeleteRequest(server_id=call.server_id, request_id=call.request_id, project=self.call.project)
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
        self, vm_state: VmState, *, power_state: PowerState | None = None, error: HostlerError | None = None
    ) -> Server:
        """Give the server back, with the operation's history; the last step of all."""
        call = Settle(
            server_id=self.call.server_id,
            run_id=self.run_id,
            vm_state=vm_state,
            power_state=power_state,
            error=error.detail if error else None,
            events=self.event_log(SETTLE.name),
        )
        return await to_the_end(self.must(SETTLE, call))

    def event_log(self, closing: str | None) -> EventLog:
        """The steps so far, for the server's history, with the `closing` one that writes them."""
        steps = [step.model_copy() for step in self.state.steps]
        if closing is not None:
            now, attempt = workflow.now(), self.state.attempt
            steps.append(Step(name=closing, status=StepStatus.DONE, attempt=attempt, started_at=now, finished_at=now))
        return EventLog(server_id=self.call.server_id, run_id=self.run_id, operation=self.operation, steps=steps)
