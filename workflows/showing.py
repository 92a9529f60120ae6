"""Shows a run: its progress to whoever follows it, its place in Temporal's index, its details in Temporal's UI."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import is_cancelled_exception

from activities.interfaces.servers import HostRef
from hostler.contract.errors import AttemptReport
from hostler.contract.names import ATTEMPT, HOST, STEP
from hostler.contract.servers import Progress, Step, StepStatus
from workflows.details import markdown
from workflows.failures import judge

# The search attributes lag behind what is done by no more than this, early and late in an operation.
FOLLOW_FIRST, FOLLOW_LATER = timedelta(seconds=1), timedelta(seconds=16)


class Shown:
    """The records of a run's steps, and all that is made of them."""

    def __init__(self, operation: str, server_id: str, planned: Sequence[str]) -> None:
        self.run_id = workflow.info().run_id
        self.title = f"{operation} {server_id}".strip()
        self.attempts: list[AttemptReport] = []
        self.state = Progress(operation=operation, server_id=server_id, run_id=self.run_id)
        self.planned = list(planned)
        self.stopping = False
        self.closing = False
        self._announcing = False
        self._following: asyncio.Task[None] | None = None
        self._published_steps = ""
        self._published_host: tuple[int, str | None] = (1, None)

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the operation stands: its steps in the order they began, then those to come."""
        if self.stopping or self.state.done:
            return self.state
        begun = {step.name for step in self.state.steps if step.attempt == self.state.attempt}
        to_come = [Step(name=name, status=StepStatus.PENDING) for name in self.planned if name not in begun]
        return self.state.model_copy(update={"steps": self.state.steps + to_come})

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

    def announce(self) -> None:
        """Tell the Temporal UI, once for all that changes at this moment."""
        if not self._announcing:
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        workflow.set_current_details(markdown(self.progress(), self.title, self.attempts))
        undoing = any(step.status is StepStatus.UNDOING for step in self.state.steps)
        if undoing or self.closing or self._published_host != (self.state.attempt, self.state.host):
            self._publish()
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Keep the search attributes at most a little behind.

        Each update is an event in the history and a write to Temporal's index, so a step that is quick gets none.
        """
        pause = FOLLOW_FIRST
        while True:
            await workflow.sleep(pause)
            self._publish()
            pause = min(2 * pause, FOLLOW_LATER)

    def _publish(self) -> None:
        active = (StepStatus.RUNNING, StepStatus.UNDOING)
        steps = " ".join(sorted({step.name for step in self.state.steps if step.status in active}))
        host = (self.state.attempt, self.state.host)
        if not steps or (steps, host) == (self._published_steps, self._published_host):
            return
        self._published_steps, self._published_host = steps, host
        updates: list[SearchAttributeUpdate[Any]] = [STEP.value_set(steps), ATTEMPT.value_set(self.state.attempt)]
        if self.state.host:
            updates.append(HOST.value_set(self.state.host))
        workflow.upsert_search_attributes(updates)
