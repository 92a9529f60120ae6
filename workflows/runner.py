"""Runs the steps of a run, and their undos."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from activities.interfaces.hosts import Hosts, OwedWork
from activities.interfaces.servers import HostRef, Limits
from hostler.contract.errors import HostlerError
from hostler.contract.names import host_queue
from hostler.contract.servers import Step, StepStatus
from workflows.failures import judge, never_started
from workflows.showing import Shown
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


class StepRunner(Shown):
    """The steps of one run, their records and their undos."""

    def __init__(self, operation: str, server_id: str, planned: Sequence[str]) -> None:
        super().__init__(operation, server_id, planned)
        self.limits = Limits()
        self.silent: set[str] = set()

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
        self.closing = final
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
                summary=self._summary(on) or None,
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
        """What Temporal's UI shows beside the activity's name; its own "attempt" counts retries."""
        words = ([f"on {host.name}"] if host else []) + (
            [f"host {self.state.attempt}"] if self.state.attempt > 1 else []
        )
        return ", ".join(words)

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
            summary=f"undo of {undo.record.name}" + (f" on {host.name}" if host else ""),
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
