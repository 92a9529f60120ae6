"""Of the tries of a step on a host, the last alone takes effect.

Temporal gives up on a try that takes too long, or is not heard of, and lets the next one begin; but what it gave up on
may still be at work here. Behind its back the operation goes on: what came late would stop the guest that was built
since, or write again what was removed.

A try does not outlive the worker's process, and a host has one. So it is enough what this one remembers.
"""

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from hostler.contract.errors import Unavailable

REMEMBERED = 10_000
"""Steps, of those that were tried more than once."""

Step = tuple[str | None, str]


class LastTry(Interceptor):
    """Ends a try when its time is over or the next one comes, which begins when that has ended."""

    def __init__(self) -> None:
        # When they were scheduled, by Temporal's clock: the number of a try may begin anew.
        self._running: dict[Step, dict[asyncio.Task[Any], datetime]] = {}
        self._latest: OrderedDict[Step, datetime] = OrderedDict()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put it before `next`."""
        return _Entrance(next, self)

    async def perform(self, next: ActivityInboundInterceptor, input: ExecuteActivityInput) -> Any:
        """Perform the try that this is, unless it is not the last.

        Raises:
            Unavailable: it is not, or its time is over. Nobody hears of it.
        """
        info = activity.info()
        step = (info.workflow_run_id or info.activity_run_id, info.activity_id)
        if self._is_late(step, info):
            raise _given_up(info)
        scheduled = info.current_attempt_scheduled_time
        earlier = [task for task, time in self._running.get(step, {}).items() if time < scheduled]
        for task in earlier:
            task.cancel()
        one = asyncio.create_task(_behind(earlier, next, input))
        self._running.setdefault(step, {})[one] = scheduled
        if earlier or info.attempt > 1:
            self._remember(step, scheduled)
        limit = info.start_to_close_timeout
        try:
            async with asyncio.timeout(limit.total_seconds() if limit else None) as time:
                return await one
        except TimeoutError as late:
            raise (_given_up(info) if time.expired() else late) from late.__cause__
        except asyncio.CancelledError as cancelled:
            if self._is_late(step, info):
                raise _given_up(info) from cancelled
            raise
        finally:
            self._leave(step, one)

    def _is_late(self, step: Step, info: activity.Info) -> bool:
        latest = self._latest.get(step)
        return latest is not None and info.current_attempt_scheduled_time < latest

    def _remember(self, step: Step, scheduled: datetime) -> None:
        self._latest[step] = scheduled
        self._latest.move_to_end(step)
        while len(self._latest) > REMEMBERED:
            self._latest.popitem(last=False)

    def _leave(self, step: Step, one: asyncio.Task[Any]) -> None:
        tries = self._running[step]
        del tries[one]
        if not tries:
            del self._running[step]


class _Entrance(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, tries: LastTry) -> None:
        super().__init__(next)
        self._tries = tries

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        return await self._tries.perform(self.next, input)


async def _behind(
    earlier: list[asyncio.Task[Any]], next: ActivityInboundInterceptor, input: ExecuteActivityInput
) -> Any:
    if earlier:
        await asyncio.wait(earlier)
    return await next.execute_activity(input)


def _given_up(info: activity.Info) -> Unavailable:
    return Unavailable(f"try {info.attempt} of {info.activity_type} was given up: another may have taken its place")
