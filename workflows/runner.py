"""Runs an operation's steps and undos, and shows them: in the progress, the search attributes and the UI's details."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from activities.interfaces.hosts import Hosts, OwedWork
from activities.interfaces.servers import HostRef, Limits
from hostler.contract.errors import AttemptReport, HostlerError
from hostler.contract.names import ATTEMPT, HOST, STEP, host_queue
from hostler.contract.servers import Progress, Step, StepStatus
from workflows.details import markdown
from workflows.failures import judge, never_started
from workflows.steps import (
    CONTROL_RETRY,
    CONTROL_UNDO_RETRY,
    HOST_RETRY,
    HOST_UNDO_RETRY,
    Argument,
    Result,
    Saga,
    StepDefinition,
    Undo,
)


class StepRunner:
    """The steps of one run, their records and their undos."""

    def __init__(self, operation: str, server_id: str, planned: Sequence[str]) -> None:
        self.run_id = workflow.info().run_id
        self.title = f"{operation} {server_id}".strip()
        self.limits = Limits()
        self.attempts: list[AttemptReport] = []
        self.state = Progress(operation=operation, server_id=server_id, run_id=self.run_id)
        self.planned = list(planned)
        self.stopping = False
        self.silent: set[str] = set()
        self._announcing = False
        self._shown: set[str] = set()

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the operation stands: its steps in the order they began, then those to come."""
        if self.stopping or self.state.done:
            return self.state
        begun = {step.name for step in self.state.steps if step.attempt == self.state.attempt}
        to_come = [Step(name=name, status=StepStatus.PENDING) for name in self.planned if name not in begun]
        return self.state.model_copy(update={"steps": self.state.steps + to_come})

    def stop_asked(self) -> bool:
        """Whether the operation should end early."""
        return workflow.cancellation_reason() is not None

    async def step(
        self,
        definition: StepDefinition[Argument, Result],
        argument: Argument,
        *,
        on: HostRef | None = None,
        saga: Saga | None = None,
        undo: Any = None,
        final: bool = False,
    ) -> Result:
        """Run one step, its undo (with the argument `undo`) entered into `saga` first.

        Once the operation should end early no step begins, and one that completes meanwhile is the last: except a
        `final` one.
        """
        self._heed(final)
        record = self.begin_record(definition.name, on)
        if saga is not None and definition.undo is not None:
            saga.enter(Undo(record, definition.undo, undo, on))
        try:
            result: Result = await workflow.execute_activity_method(
                definition.activity,
                argument,
                task_queue=host_queue(on.id) if on else None,
                schedule_to_start_timeout=self.limits.host_answer if on else None,
                start_to_close_timeout=definition.timeout,
                heartbeat_timeout=definition.heartbeat,
                retry_policy=HOST_RETRY if on else CONTROL_RETRY,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary=self._summary(on),
            )
        except (FailureError, asyncio.CancelledError) as failure:
            self.end_record(record, failure)
            if on is not None and never_started(failure):
                self.silent.add(on.id)
            if is_cancelled_exception(failure):
                raise asyncio.CancelledError from failure
            raise
        self.end_record(record)
        self._heed(final)
        return result

    def _heed(self, final: bool) -> None:
        if not final and not self.stopping and self.stop_asked():
            raise asyncio.CancelledError

    def explain(self, failure: BaseException) -> HostlerError:
        """What the failure of the step that failed last means."""
        failed = [step for step in self.state.steps if step.status is StepStatus.FAILED]
        return judge(failure, host=failed[-1].host if failed else None).error

    def _summary(self, host: HostRef | None) -> str:
        return (f"on {host.name}, " if host else "") + f"attempt {self.state.attempt}"

    def begin_record(self, name: str, host: HostRef | None) -> Step:
        """Enter a step into the progress as running."""
        record = Step(
            name=name,
            status=StepStatus.RUNNING,
            attempt=self.state.attempt,
            host=host.name if host else None,
            started_at=workflow.now(),
        )
        self.state.steps.append(record)
        self.announce()
        return record

    def end_record(self, record: Step, failure: BaseException | None = None) -> None:
        """Say how it ended."""
        record.finished_at = workflow.now()
        record.status = StepStatus.DONE
        if failure is not None:
            record.status = StepStatus.FAILED
            cancelled = is_cancelled_exception(failure)
            record.error = "cancelled" if cancelled else judge(failure, host=record.host).error.detail.message
        self.announce()

    async def ensure(self, definition: StepDefinition[Argument, None], argument: Argument, *, on: HostRef) -> None:
        """Run a step that must happen some day: what the host cannot do now, it owes."""
        if on.id in self.silent:
            record = self.begin_record(definition.name, on)
            await self._owe(record, definition.activity, argument, on, "the host does not answer")
            return
        try:
            await self.step(definition, argument, on=on)
        except ActivityError as failure:
            reason = self._hear(failure, on)
            await self._owe(self.state.steps[-1], definition.activity, argument, on, reason)

    async def unwind(self, saga: Saga) -> bool:
        """Undo, last first; False when a host could not be asked and now owes some of it."""
        clean = True
        for undo in saga.take():
            undo.record.status = StepStatus.UNDOING
            self.announce()
            reason = await self._undo(undo)
            if reason is None:
                undo.record.status = StepStatus.UNDONE
            elif undo.host is None:
                undo.record.note = f"undo failed: {reason}"
            else:
                clean = False
                await self._owe(undo.record, undo.activity, undo.argument, undo.host, reason)
        self.announce()
        return clean

    async def _undo(self, undo: Undo) -> str | None:
        """None when it is undone, else why not."""
        if undo.host is not None and undo.host.id in self.silent:
            return "the host does not answer"
        try:
            await self._run_undo(undo)
        except ActivityError as failure:
            return self._hear(failure, undo.host)
        return None

    def _hear(self, failure: ActivityError, host: HostRef | None) -> str:
        """The reason of a failure; a host that was silent is not asked again by this run."""
        verdict = judge(failure, host=host.name if host else None)
        if host is not None and not verdict.answered:
            self.silent.add(host.id)
        return verdict.error.detail.message

    async def _run_undo(self, undo: Undo) -> None:
        host = undo.host
        await workflow.execute_activity_method(
            undo.activity,
            undo.argument,
            task_queue=host_queue(host.id) if host else None,
            schedule_to_start_timeout=self.limits.host_answer if host else None,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=HOST_UNDO_RETRY if host else CONTROL_UNDO_RETRY,
            summary=f"undo of {undo.record.name}, {self._summary(host)}",
        )

    async def _owe(
        self, record: Step, work: Callable[..., Any], argument: BaseModel, host: HostRef, reason: str
    ) -> None:
        record.status = StepStatus.OWED
        record.finished_at = workflow.now()
        record.note = f"owed by {host.name}: {reason}"
        owed = OwedWork(
            id=str(workflow.uuid4()),
            host_id=host.id,
            server_id=self.state.server_id or None,
            activity=work.__name__,
            argument=argument.model_dump(mode="json"),
            reason=reason,
        )
        await workflow.execute_activity_method(
            Hosts.owe,
            owed,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=CONTROL_UNDO_RETRY,
            summary=f"{host.name} owes {work.__name__}",
        )

    def announce(self) -> None:
        """Tell the Temporal UI, once for all that changes at this moment."""
        if not self._announcing:
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        workflow.set_current_details(markdown(self.progress(), self.title, self.attempts))
        active = (StepStatus.RUNNING, StepStatus.UNDOING)
        running = {step.name for step in self.state.steps if step.status in active}
        # An update of the search attributes is an event in the history: one for each stage, none between them.
        if running and not running <= self._shown:
            self._shown = running
            workflow.upsert_search_attributes(self._search_attributes(running))

    def _search_attributes(self, running: set[str]) -> list[SearchAttributeUpdate[Any]]:
        updates: list[SearchAttributeUpdate[Any]] = [
            STEP.value_set(" ".join(sorted(running))),
            ATTEMPT.value_set(self.state.attempt),
        ]
        return [*updates, HOST.value_set(self.state.host)] if self.state.host else updates


class CatalogueRunner(StepRunner):
    """The steps of a workflow that makes or removes something of the catalogue."""

    def __init__(self) -> None:
        super().__init__(workflow.info().workflow_type, "", ())

    async def all_or_nothing(self, carry_out: Callable[[Saga], Awaitable[Result]]) -> Result:
        """Carry out; on failure or cancellation undo."""
        saga = Saga()
        try:
            result = await carry_out(saga)
        except asyncio.CancelledError:
            self.stopping = True
            await to_the_end(self.unwind(saga))
            raise
        except (FailureError, HostlerError) as failure:
            self.stopping = True
            error = self.explain(failure)
            await to_the_end(self.unwind(saga))
            raise error.to_application_error() from None
        self.state.done = True
        return result


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` whatever cancellation arrives meanwhile: it must not stop half-way."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


async def together(*work: Awaitable[Any]) -> list[Any]:
    """Run at the same time, and let each come to its end before the first failure is raised.

    So that no step still runs when the undo begins; a cancellation reaches all of them.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    cancelled = False
    while not all(task.done() for task in tasks):
        try:
            await workflow.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
            for task in tasks:
                task.cancel()
    if cancelled:
        raise asyncio.CancelledError
    return [task.result() for task in tasks]
