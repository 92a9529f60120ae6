"""Runs the steps of a run."""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from activities.interfaces.hosts import Hosts
from activities.interfaces.servers import HostRef
from hostler.contract.errors import HostlerError
from hostler.contract.names import host_queue
from hostler.contract.servers import Decision, Step, StepStatus
from workflows.failures import Verdict, judge, never_started
from workflows.steps import CONTROL_RETRY, HOST_RETRY, Argument, Result, Saga, StepDefinition, Undo
from workflows.unwinding import COMES_FIRST, Unwinder, pause

HEEDS_DECLARATION = "forward-heeds-declaration"


class StepRunner(Unwinder):
    """The steps of one run, with their undos entered before they begin."""

    def stop_asked(self) -> bool:
        """Whether the operation should end early."""
        return workflow.cancellation_reason() is not None

    def taken_over(self) -> bool:
        """Whether a delete waits for the operation to end."""
        return False

    async def step(
        self,
        definition: StepDefinition[Argument, Result],
        argument: Argument,
        *,
        on: HostRef | None = None,
        saga: Saga | None = None,
        undo: Any = None,
        final: bool = False,
        again: Callable[[Decision], Argument] | None = None,
    ) -> Result:
        """Run one step, its undo (with the argument `undo`) entered into `saga` first.

        Once the operation should end early no step begins, and one that completes meanwhile is the last: except a
        `final` one. `again` gives the argument for another try that an operator decided on.
        """
        entry: Undo | None = None
        while True:
            self.heed(final)
            self.closing = final
            record = self.begin_record(definition.name, on)
            if entry is not None:
                entry.record = record
            elif saga is not None and definition.undo is not None:
                entry = Undo(record, definition.undo, undo, on)
                saga.enter(entry)
            try:
                result: Result = await self._execute(definition, argument, on)
            except (FailureError, asyncio.CancelledError) as failure:
                self._failed(record, on, failure)
                decision = await self.stuck(record, failure, on)
                argument = again(decision) if again else argument
                self.heard(on)  # whoever decides to try again may have repaired the host
            else:
                self.end_record(record)
                self.heard(on)
                self.heed(final)
                return result

    async def _execute(
        self, definition: StepDefinition[Argument, Result], argument: Argument, on: HostRef | None
    ) -> Result:
        result: Result = await workflow.execute_activity_method(
            definition.activity,
            argument,
            task_queue=host_queue(on.id) if on else None,
            schedule_to_start_timeout=self.limits.host_answer if on else None,
            start_to_close_timeout=definition.timeout,
            heartbeat_timeout=definition.heartbeat,
            retry_policy=HOST_RETRY if on else CONTROL_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=self._summary(on) or None,
        )
        return result

    def _failed(self, record: Step, on: HostRef | None, failure: BaseException) -> None:
        self.end_record(record, failure)
        if on is not None and never_started(failure):
            self.silent.add(on.id)
        if is_cancelled_exception(failure):
            raise asyncio.CancelledError from failure

    async def stuck(self, record: Step, failure: BaseException, on: HostRef | None) -> Decision:
        """A step has exhausted its retries: returns when it is to be tried again, else raises its failure."""
        raise failure

    def heed(self, final: bool = False) -> None:
        """Go no further once the operation should end early.

        To be asked after every wait: Temporal's SDK loses a cancellation that comes together with what is waited for.

        Raises:
            asyncio.CancelledError: it should.
        """
        if not final and not self.stopping and self.stop_asked():
            raise asyncio.CancelledError

    def explain(self, failure: BaseException) -> HostlerError:
        """What the failure of the step that failed last means."""
        failed = [step for step in self.state.steps if step.status is StepStatus.FAILED]
        return judge(failure, host=failed[-1].host if failed else None).error

    def _summary(self, host: HostRef | None) -> str:
        """What Temporal's UI shows beside the activity's name; its own "attempt" counts retries."""
        words = ([f"on {host.name}"] if host else []) + (
            [f"host {self.state.attempt}"] if self.state.attempt > 1 else []
        )
        return ", ".join(words)

    async def ask(
        self, definition: StepDefinition[Argument, Result], argument: Argument, *, on: HostRef
    ) -> Result | Verdict:
        """Ask a host something whose failure is an answer too."""
        record = self.begin_record(definition.name, on)
        try:
            result = await self._execute(definition, argument, on)
        except ActivityError as failure:
            self._failed(record, on, failure)
            return judge(failure, host=on.name)
        self.end_record(record)
        self.heard(on)
        return result

    async def ensure(self, definition: StepDefinition[Argument, None], argument: Argument, *, on: HostRef) -> None:
        """Run a step that must happen some day: what the host cannot do now, it owes."""
        if (reason := self.cannot_ask(on)) is not None:
            record = self.begin_record(definition.name, on)
            await self.owe(record, definition.activity, argument, on, reason)
            return
        record = self.begin_record(definition.name, on)
        try:
            await self._execute(definition, argument, on)
        except ActivityError as failure:
            self._failed(record, on, failure)
            await self.owe(record, definition.activity, argument, on, self.hear(failure, on))
        else:
            self.end_record(record)

    async def forward(self, definition: StepDefinition[Argument, None], argument: Argument, *, on: HostRef) -> None:
        """Run a step on a host from which there is no way back: it is tried until it works, with growing pauses.

        A host that is away, or that cannot do it now, shows in the step's note; only a repair helps, or a delete. One
        that has been declared down owes it, and all that comes behind it.

        Raises:
            asyncio.CancelledError: the server is being deleted.
        """
        record, pauses = self.begin_record(definition.name, on), 0
        while on.id not in self.owing:
            try:
                await self._execute(definition, argument, on)
            except ActivityError as failure:
                if is_cancelled_exception(failure) or self.taken_over():
                    raise asyncio.CancelledError from failure
                if workflow.patched(HEEDS_DECLARATION) and await self.insist(Hosts.declared_down, on, record, "look"):
                    return await self.owe(record, definition.activity, argument, on, "the host has been declared down")
                record.note = f"tried again: {judge(failure, host=on.name).error.detail.message}"
                workflow.logger.error("%s on %s: %s", definition.name, on.name, record.note)
                self.announce()
                await workflow.sleep(pause(pauses))
                pauses += 1
            else:
                record.note = None
                self.end_record(record)
                self.heard(on)
                return
        await self.owe(record, definition.activity, argument, on, COMES_FIRST)

    async def must(
        self, definition: StepDefinition[Argument, Result], argument: Argument, *, refusable: bool = False
    ) -> Result:
        """Run a step of the control plane that has no undo: it is tried until it works, or is refused."""
        self.closing = True
        record = self.begin_record(definition.name, None)
        try:
            result: Result = await self.insist(
                definition.activity, argument, record, definition.name, refusable=refusable
            )
        except ActivityError as failure:
            self.end_record(record, failure)
            raise
        self.end_record(record)
        return result
