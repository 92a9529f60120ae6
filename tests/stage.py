"""A stage for activities: tests hold them, make them fail, and see which ran.

It enters the workers by way of their Temporal client, so the workers are wired as in production.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import temporalio.client
import temporalio.worker
from temporalio import activity

from hostler.contract.errors import HostlerError
from hostler.contract.names import HOST_QUEUE_PREFIX


@dataclass(frozen=True)
class Played:
    """An activity that began: its name, and its host's UUID (None: the control worker)."""

    name: str
    host_id: str | None
    workflow_id: str | None


@dataclass
class Held:
    """An activity that is held: `reached` is set when it began, and it goes on when `go_on` is.

    `afterwards`: when it has done its work, its answer not yet given.
    """

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    afterwards: bool = False

    async def wait(self) -> None:
        """What the activity does."""
        self.reached.set()
        await self.go_on.wait()


@dataclass
class _Failure:
    error: Callable[[], BaseException]
    times: int
    afterwards: bool


class Stage(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """What a test wants to happen to activities, by name."""

    def __init__(self) -> None:
        self.played: list[Played] = []
        self.under_way: list[Played] = []
        self._holds: dict[str, deque[Held]] = {}
        self._failures: dict[str, deque[_Failure]] = {}

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        """Put the stage before `next`."""
        return _Entrance(next, self)

    def hold(self, name: str, *, afterwards: bool = False) -> Held:
        """Hold the next activity of this name until the test lets it go on."""
        held = Held(afterwards=afterwards)
        self._holds.setdefault(name, deque()).append(held)
        return held

    def fail(self, name: str, error: BaseException, *, times: int = 1, afterwards: bool = False) -> None:
        """Let the next activities of this name fail: before they do anything, or `afterwards`, their answer lost."""

        def made() -> BaseException:
            return error.to_application_error() if isinstance(error, HostlerError) else error

        self._failures.setdefault(name, deque()).append(_Failure(made, times, afterwards))

    def names(self, workflow_id: str | None = None) -> list[str]:
        """The names of all that began, in order."""
        return [one.name for one in self.played if workflow_id in (None, one.workflow_id)]

    async def play(self, perform: Callable[[], Any]) -> Any:
        """One activity, with what the test wants of it."""
        info = activity.info()
        host_id = info.task_queue.removeprefix(HOST_QUEUE_PREFIX)
        one = Played(info.activity_type, host_id if host_id != info.task_queue else None, info.workflow_id)
        self.played.append(one)
        self.under_way.append(one)
        try:
            waiting = self._holds.get(one.name)
            held = waiting.popleft() if waiting else None
            if held is not None and not held.afterwards:
                await held.wait()
            failure = self._due(one.name)
            if failure is not None and not failure.afterwards:
                raise failure.error()
            result = await perform()
            if held is not None and held.afterwards:
                await held.wait()
            if failure is not None:
                raise failure.error()
            return result
        finally:
            self.under_way.remove(one)

    def _due(self, name: str) -> _Failure | None:
        failures = self._failures.get(name)
        if not failures:
            return None
        failure = failures[0]
        failure.times -= 1
        if failure.times == 0:
            failures.popleft()
        return failure


class _Entrance(temporalio.worker.ActivityInboundInterceptor):
    def __init__(self, next: temporalio.worker.ActivityInboundInterceptor, stage: Stage) -> None:
        super().__init__(next)
        self._stage = stage

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
        async def perform() -> Any:
            return await self.next.execute_activity(input)

        return await self._stage.play(perform)


async def eventually(condition: Callable[[], Any], *, within: float = 20.0) -> None:
    """Return as soon as the condition holds.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is about the world, not about a task of ours
            await asyncio.sleep(0.03)
