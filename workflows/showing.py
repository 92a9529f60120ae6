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

# A step that is over sooner than this does not show in the search attributes: each update of them is an event in the
# history and a write to Temporal's index.
QUICK = timedelta(seconds=1)


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
        self._publishing: asyncio.Task[None] | None = None
        self._published_steps = ""
        self._published_host: tuple[int, str | None] = (1, None)

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the operation stands: its steps in the order they began, then those to come."""
        if self.stopping or self.state.done:
            return self.state
        begun = {step.name for step in self.state.steps if step.attempt == self.state.attempt or _kept(step)}
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

    def last_record(self, name: str) -> Step:
        """The record of a step that has begun, when it was tried last."""
        return next(step for step in reversed(self.state.steps) if step.name == name)

    def announce(self) -> None:
        """Tell the Temporal UI, once for all that changes at this moment."""
        if not self._announcing:
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        workflow.set_current_details(markdown(self.progress(), self.title, self.attempts))
        if self.closing or (self.state.attempt, self.state.host) != self._published_host:
            self._publish()
        elif self._publishing is None and self._current() != self._published_steps:
            self._publishing = asyncio.create_task(self._publish_soon())

    async def _publish_soon(self) -> None:
        await workflow.sleep(QUICK, summary="show the step")
        self._publishing = None
        self._publish()

    def _current(self) -> str:
        """The steps under way; once the operation gives up, the one at which it failed."""
        if self.stopping:
            failed = [step.name for step in self.state.steps if step.error]
            return failed[-1] if failed else ""
        return " ".join(sorted({step.name for step in self.state.steps if step.status is StepStatus.RUNNING}))

    def _publish(self) -> None:
        steps, host = self._current(), (self.state.attempt, self.state.host)
        if not steps or (steps, host) == (self._published_steps, self._published_host):
            return
        self._published_steps, self._published_host = steps, host
        updates: list[SearchAttributeUpdate[Any]] = [STEP.value_set(steps), ATTEMPT.value_set(self.state.attempt)]
        if self.state.host:
            updates.append(HOST.value_set(self.state.host))
        workflow.upsert_search_attributes(updates)


def _kept(step: Step) -> bool:
    """Whether a step of an earlier attempt still stands: it was not on a host, and was not undone."""
    return step.host is None and step.status is StepStatus.DONE
