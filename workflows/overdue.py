"""The deadline of an operation: one that takes longer than it should raises an alert, and takes it back at its end.

The alert is a step `overdue` in its progress and in the server's history, the search attribute HostlerOverdue, and a
warning in the log, each with the step at which it is and what is known of the reason.
"""

import asyncio
from datetime import timedelta
from typing import Protocol

from temporalio import workflow

from activities.interfaces.runs import RunRef, Runs
from activities.interfaces.servers import EventLog, HostRef, Note, Servers
from hostler.contract.names import OVERDUE
from hostler.contract.servers import Progress, Step, StepStatus
from workflows.steps import CONTROL_UNDO_RETRY, QUICK_STEP

NAME = "overdue"
UNDER_WAY = (StepStatus.RUNNING, StepStatus.HELD, StepStatus.UNDOING)


class Watched(Protocol):
    """What is watched."""

    state: Progress

    def begin_record(self, name: str, host: HostRef | None) -> Step:
        """Enter a step into the progress."""

    def end_record(self, record: Step, failure: BaseException | None = None) -> None:
        """Say how it ended."""

    def event_log(self, closing: str | None) -> EventLog:
        """The steps so far."""


class Watch:
    """The watch over one operation."""

    def __init__(self, operation: Watched) -> None:
        self._operation = operation
        self._task: asyncio.Task[None] | None = None
        self._alert: Step | None = None
        self._taken_back = False

    def begin(self, limit: timedelta | None) -> None:
        """Raise the alert when `limit` has passed and the operation still runs."""
        if limit is not None:
            self._task = asyncio.create_task(self._wait(limit))

    def take_back(self) -> None:
        """The operation is about to end, and its history to be written."""
        if self._alert is not None and not self._taken_back:
            self._taken_back = True
            self._alert.note = f"{self._alert.note}; taken back when the operation ended"

    def end(self) -> None:
        """The operation has ended: so has the alert."""
        if self._task is not None:
            self._task.cancel()
        if self._alert is not None:
            self.take_back()
            workflow.upsert_search_attributes([OVERDUE.value_set(False)])
            workflow.logger.warning("is no longer overdue: it has ended")

    async def _wait(self, limit: timedelta) -> None:
        await workflow.sleep(limit, summary="overdue")
        state = self._operation.state
        where = _where(state)
        self._alert = self._operation.begin_record(NAME, None)
        self._operation.end_record(self._alert)
        self._alert.note = f"after {limit.total_seconds():g} s still {where}"
        workflow.upsert_search_attributes([OVERDUE.value_set(True)])
        if reasons := [*_reasons(state), *await self._failing()]:
            self._alert.note += f"; {'; '.join(reasons)}"
        workflow.logger.warning("is overdue: %s", self._alert.note)
        await workflow.execute_activity_method(
            Servers.note,
            Note(hold=state.hold, events=self._operation.event_log(None)),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_UNDO_RETRY,
            summary="overdue",
        )

    async def _failing(self) -> list[str]:
        """Temporal tries steps again without a word to the workflow, but it can be asked."""
        info = workflow.info()
        failing: list[str] = await workflow.execute_activity_method(
            Runs.failing_steps,
            RunRef(workflow_id=info.workflow_id, run_id=info.run_id),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_UNDO_RETRY,
            summary="overdue: why",
        )
        return failing


def _under_way(progress: Progress) -> list[Step]:
    return [step for step in progress.steps if step.status in UNDER_WAY]


def _where(progress: Progress) -> str:
    """The steps under way."""
    at = [step.name + (f" on {step.host}" if step.host else "") for step in _under_way(progress)]
    return f"at {', '.join(at) or 'the start'}"


def _reasons(progress: Progress) -> list[str]:
    """What the steps under way say of themselves."""
    return [step.note for step in _under_way(progress) if step.note]
