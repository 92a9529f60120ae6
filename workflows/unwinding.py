"""Takes steps back: now, or, where a host does not answer, as work that it owes."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.interfaces.hosts import Hosts, OwedWork
from activities.interfaces.servers import HostRef, Limits
from hostler.contract.errors import NotFound
from hostler.contract.names import host_queue
from hostler.contract.servers import Step, StepStatus
from workflows.failures import is_refusal, judge
from workflows.showing import Shown
from workflows.steps import CONTROL_UNDO_RETRY, HOST_UNDO_RETRY, Saga, Undo

SHORTEST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=1)
COMES_FIRST = "what it owes before comes first"


def pause(number: int) -> timedelta:
    """How long to wait after so many tries that came to nothing."""
    doublings: int = 2 ** min(number, 10)  # a timedelta does not hold any number
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * doublings)


class Unwinder(Shown):
    """The undos of one run.

    `silent` are hosts that did not take a step: they are not asked again until heard of. `owing` are those that owe
    something of this run: what follows there builds on it, and is owed behind it.
    """

    def __init__(self, operation: str, server_id: str, planned: Sequence[str]) -> None:
        super().__init__(operation, server_id, planned)
        self.limits = Limits()
        self.silent: set[str] = set()
        self.owing: set[str] = set()

    async def unwind(self, saga: Saga) -> bool:
        """Undo, last first; False when a host could not be asked and now owes some of it."""
        clean = True
        for undo in saga.take():
            undo.record.status = StepStatus.UNDOING
            self.announce()
            reason = await self._undo(undo)
            if reason is None or undo.host is None:
                undo.record.status = StepStatus.UNDONE
            else:
                clean = False
                await self.owe(undo.record, undo.activity, undo.argument, undo.host, reason)
        self.announce()
        return clean

    async def _undo(self, undo: Undo) -> str | None:
        """None when it is undone, else why its host did not do it."""
        if undo.host is None:
            await self.insist(undo.activity, undo.argument, undo.record, f"undo of {undo.record.name}")
            return None
        if (reason := self.cannot_ask(undo.host)) is not None:
            return reason
        try:
            await self._run_undo(undo, undo.host)
        except ActivityError as failure:
            return self.hear(failure, undo.host)
        return None

    def cannot_ask(self, host: HostRef) -> str | None:
        """Why the host is not asked now, if that is so."""
        if host.id in self.silent:
            return "the host does not answer"
        if host.id in self.owing:
            return COMES_FIRST
        return None

    def hear(self, failure: ActivityError, host: HostRef | None) -> str:
        """The reason of a failure; a host that was silent is not asked again by this run."""
        verdict = judge(failure, host=host.name if host else None)
        if host is not None and not verdict.answered:
            self.silent.add(host.id)
        return verdict.error.detail.message

    def heard(self, host: HostRef | None) -> None:
        """The host answers: it may be asked again."""
        if host is not None:
            self.silent.discard(host.id)

    async def _run_undo(self, undo: Undo, host: HostRef) -> None:
        await workflow.execute_activity_method(
            undo.activity,
            undo.argument,
            task_queue=host_queue(host.id),
            schedule_to_start_timeout=self.limits.host_answer,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=HOST_UNDO_RETRY,
            summary=f"undo of {undo.record.name} on {host.name}",
        )

    async def insist(
        self, work: Callable[..., Any], argument: BaseModel, record: Step, summary: str, *, refusable: bool = False
    ) -> Any:
        """What the control plane must do, whatever it fails with: there is no way back from here.

        Temporal retries what may pass; what says that it will not is tried again all the same, with growing pauses,
        since only a repair of the code or of the database can help, and the operation must then end by itself.

        Raises:
            ActivityError: what it is about is not in the database, so there is nothing to do; a cancellation; or, where
                it is `refusable`, one of our own errors, which say that nothing was done.
        """
        pauses = 0
        while True:
            try:
                result = await workflow.execute_activity_method(
                    work,
                    argument,
                    start_to_close_timeout=timedelta(seconds=60),
                    retry_policy=CONTROL_UNDO_RETRY,
                    summary=summary,
                )
            except ActivityError as failure:
                error = judge(failure, host=None).error
                refused = refusable and is_refusal(failure)
                if is_cancelled_exception(failure) or isinstance(error, NotFound) or refused:
                    raise
                record.note = f"{summary} failed, tried again: {error.detail.message}"
                workflow.logger.error("%s", record.note)
                self.announce()
                await workflow.sleep(pause(pauses))
                pauses += 1
            else:
                record.note = None
                return result

    async def owe(
        self, record: Step, work: Callable[..., Any], argument: BaseModel, host: HostRef, reason: str
    ) -> None:
        """Write down what the host is to do when it returns."""
        self.owing.add(host.id)
        record.status = StepStatus.OWED
        record.finished_at = workflow.now()
        owed = OwedWork(
            id=str(workflow.uuid4()),
            host_id=host.id,
            server_id=self.state.server_id or None,
            activity=work.__name__,
            argument=argument.model_dump(mode="json"),
            reason=reason,
        )
        await self.insist(Hosts.owe, owed, record, f"{host.name} owes {work.__name__}")
        record.note = f"owed by {host.name}: {reason}"
