"""Of the tries of a step, the last alone takes effect."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.last_try import LastTry
from drivers.blocking import BlockingCalls
from hostler.contract.errors import Unavailable

Work = Callable[[], Awaitable[Any]]
INPUT = ExecuteActivityInput(fn=lambda: None, args=[], executor=None, headers={})
EARLY = ActivityEnvironment.default_info()


class Does(ActivityInboundInterceptor):
    """An activity."""

    def __init__(self, work: Work) -> None:
        self.work = work

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        return await self.work()


def begun(
    tries: LastTry, work: Work, attempt: int, *, step: str = "1", after: float = 0, limit: float | None = 60
) -> "asyncio.Task[Any]":
    """A try of a step, under way. `after`: how long after the first it was scheduled, beyond what its number says."""
    environment = ActivityEnvironment()
    environment.info = replace(
        EARLY,
        activity_id=step,
        attempt=attempt,
        workflow_run_id="run",
        current_attempt_scheduled_time=EARLY.current_attempt_scheduled_time + timedelta(seconds=attempt + after),
        start_to_close_timeout=timedelta(seconds=limit) if limit else None,
    )

    async def perform() -> Any:
        return await tries.intercept_activity(Does(work)).execute_activity(INPUT)

    return asyncio.ensure_future(environment.run(perform))


async def forever() -> None:
    await asyncio.Event().wait()


async def seven() -> int:
    assert activity.in_activity()
    return 7


async def test_what_comes_behind_a_later_try_is_refused() -> None:
    tries = LastTry()
    assert await begun(tries, seven, 2) == 7

    with pytest.raises(Unavailable, match="try 1 of unknown was given up"):
        await begun(tries, seven, 1)

    assert await begun(tries, seven, 3) == 7


async def test_an_earlier_try_that_is_at_work_is_ended() -> None:
    tries = LastTry()
    first = begun(tries, forever, 1)
    await asyncio.sleep(0)

    assert await begun(tries, seven, 2) == 7

    with pytest.raises(Unavailable):
        await first


async def test_what_cannot_be_interrupted_comes_before_the_later_try() -> None:
    tries, hangs, calls = LastTry(), asyncio.Event(), BlockingCalls("test", 1)
    done: list[str] = []
    loop = asyncio.get_running_loop()

    def block() -> None:
        asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result()
        done.append("first")

    async def late() -> None:
        await calls.run(block)
        done.append("never")

    async def prompt() -> None:
        done.append("second")

    first = begun(tries, late, 1)
    await asyncio.sleep(0.01)
    second = begun(tries, prompt, 2)
    third = begun(tries, prompt, 3)
    await asyncio.sleep(0.01)
    assert done == []
    hangs.set()

    await third

    assert done == ["first", "second"]  # that of the third try: the second was ended as well
    for one in (first, second):
        with pytest.raises(Unavailable):
            await one
    await calls.close()


async def test_a_try_ends_with_its_time() -> None:
    with pytest.raises(Unavailable):
        await begun(LastTry(), forever, 1, limit=0.01)
    assert await begun(LastTry(), seven, 1, limit=None) == 7


async def test_a_try_that_waits_for_an_earlier_one_ends_with_its_time_too() -> None:
    tries, ends = LastTry(), asyncio.Event()

    async def stubborn() -> None:
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    first = begun(tries, stubborn, 1)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await begun(tries, seven, 2, limit=0.01)
    ends.set()
    await first


async def test_other_steps_and_the_same_try_once_more_are_let_be() -> None:
    tries, gate = LastTry(), asyncio.Event()

    async def through() -> int:
        await gate.wait()
        return 7

    here = [begun(tries, through, 1), begun(tries, through, 1), begun(tries, through, 2, step="2")]
    await asyncio.sleep(0)
    gate.set()

    assert await asyncio.gather(*here) == [7, 7, 7]


async def test_tries_whose_numbers_begin_anew_are_in_the_order_of_their_time() -> None:
    tries = LastTry()
    assert await begun(tries, seven, 3) == 7

    assert await begun(tries, seven, 1, after=60) == 7  # temporal activity reset


async def test_its_own_errors_and_a_cancellation_pass() -> None:
    async def too_slow() -> None:
        raise TimeoutError("the guest's agent")

    with pytest.raises(TimeoutError, match="agent"):
        await begun(LastTry(), too_slow, 1)
    one = begun(LastTry(), forever, 1)
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one


async def test_nothing_is_kept_of_what_has_ended_at_once() -> None:
    tries = LastTry()
    await begun(tries, seven, 1)

    assert (tries._running, tries._latest) == ({}, {})
