"""Following one run of an operation: what its workflow says of its steps, and Temporal of their activities."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecutionDescription, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.exceptions import FailureError, TemporalError
from temporalio.service import RPCError

from hostler.client.errors import is_transient
from hostler.contract.servers import Progress, Step, StepStatus

QUERY = "progress"
TICK_S = 1.0  # pending activities change without an event in the history, so they are looked at
SETTLE_S = 0.05  # events come in bursts; one look serves them all
BACKOFF_S = (0.5, 10.0)
# Without a worker a query fails only after its time-out, so it is not tried at each tick.
QUERY_TIMEOUT = timedelta(seconds=5)
QUERY_AGAIN_S = 5.0
UNDER_WAY = (StepStatus.RUNNING, StepStatus.UNDOING)


@dataclass(frozen=True)
class Pending:
    """What Temporal knows of an activity that has not ended."""

    id: str
    type: str
    attempt: int = 1
    error: str | None = None
    note: str | None = None
    scheduled_at: datetime | None = None


def merge(progress: Progress, pending: Iterable[Pending]) -> Progress:
    """The progress, its steps under way completed by the attempts, last errors and notes of their activities."""
    left = list(pending)
    steps = []
    for step in progress.steps:
        activity = next((p for p in left if step.name in (p.id, p.type)), None)
        if step.status in UNDER_WAY and activity is not None:
            left.remove(activity)
            step = step.model_copy(
                update={
                    "retries": max(step.retries, activity.attempt - 1),
                    "error": activity.error or step.error,
                    "note": activity.note or step.note,
                }
            )
        steps.append(step)
    # No workflow has told its steps yet: its activities are better than nothing.
    if not progress.steps:
        steps = [
            Step(
                name=p.type,
                status=StepStatus.RUNNING,
                started_at=p.scheduled_at,
                error=p.error,
                retries=p.attempt - 1,
                note=p.note,
            )
            for p in left
        ]
    return progress.model_copy(update={"steps": steps})


async def pending_activities(description: WorkflowExecutionDescription, converter: DataConverter) -> list[Pending]:
    """A run's activities that have not ended."""
    return [await _pending(info, converter) for info in description.raw_description.pending_activities]


async def _pending(info: PendingActivityInfo, converter: DataConverter) -> Pending:
    details = await converter.decode(info.heartbeat_details.payloads) if info.heartbeat_details.payloads else []
    return Pending(
        id=info.activity_id,
        type=info.activity_type.name,
        attempt=info.attempt,
        error=await _message(info.last_failure, converter) if info.HasField("last_failure") else None,
        note=_note(details[0]) if details else None,
        scheduled_at=info.scheduled_time.ToDatetime(UTC) if info.HasField("scheduled_time") else None,
    )


async def _message(failure: Failure, converter: DataConverter) -> str:
    """A failure's message, which is encrypted where there is a key."""
    decoded = Failure()
    decoded.CopyFrom(failure)  # decoding changes it
    error = await converter.decode_failure(decoded)
    return error.message if isinstance(error, FailureError) else str(error)


def _note(detail: Any) -> str:
    return detail if isinstance(detail, str) else json.dumps(detail, default=str)


async def follow_run(handle: WorkflowHandle[Any, Any], unknown: Progress) -> AsyncIterator[Progress]:
    """Each change of a run's progress until the run closes; the last one has `done` set.

    It outlives restarts of workers and of Temporal. `unknown` stands for the progress until a worker has told it.

    Raises:
        RPCError: Temporal refuses, for a reason that waiting does not mend.
    """
    bell = asyncio.Event()
    bell.set()
    ringer = asyncio.create_task(_ring(handle, bell))
    watch = _Watch(handle, bell, unknown)
    shown = None
    delay = BACKOFF_S[0]
    try:
        while not watch.closed:
            try:
                progress = await watch.look()
            except RPCError as error:
                if not is_transient(error):
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF_S[1])
                continue
            delay = BACKOFF_S[0]
            if progress != shown:
                shown = progress
                yield progress
            if not watch.closed:
                await _rung(bell)
    finally:
        ringer.cancel()
        await asyncio.gather(ringer, return_exceptions=True)


class _Watch:
    """One run, looked at again and again."""

    def __init__(self, handle: WorkflowHandle[Any, Any], bell: asyncio.Event, unknown: Progress) -> None:
        self.closed = False
        self._handle = handle
        self._bell = bell
        self._told = unknown
        self._stale = False
        self._query_at = 0.0

    async def look(self) -> Progress:
        # Described first: a run that is closed by now has its last word in the query after it.
        description = await self._handle.describe()
        closed = description.close_time is not None
        if self._bell.is_set():
            self._bell.clear()
            self._stale = True
        if closed or (self._stale and monotonic() >= self._query_at):
            await self._query()
        self.closed = closed
        if closed:
            return self._told.model_copy(update={"done": True})
        return merge(self._told, await pending_activities(description, description.data_converter))

    async def _query(self) -> None:
        try:
            self._told = await self._handle.query(QUERY, result_type=Progress, rpc_timeout=QUERY_TIMEOUT)
            self._stale = False
        except TemporalError:
            self._query_at = monotonic() + QUERY_AGAIN_S


async def _ring(handle: WorkflowHandle[Any, Any], bell: asyncio.Event) -> None:
    """Ring at each event of the run's history; the server holds the request until there is one."""
    while True:
        try:
            async for _ in handle.fetch_history_events(wait_new_event=True):
                bell.set()
        except RPCError as error:
            if not is_transient(error):
                return
            await asyncio.sleep(BACKOFF_S[0])
        else:
            return


async def _rung(bell: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TICK_S):
            await bell.wait()
    await asyncio.sleep(SETTLE_S)
