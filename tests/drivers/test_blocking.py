"""Blocking calls on threads: cancelled ones are waited for, since an undo follows."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator

import pytest

from drivers.blocking import BlockingCalls


class Step:
    """A blocking call that tells when it begins and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(timeout=10)
        self.ended = True
        return "done"

    async def running(self) -> None:
        await asyncio.to_thread(self.begun.wait, 10)


@pytest.fixture
async def calls() -> AsyncIterator[BlockingCalls]:
    calls = BlockingCalls("test", threads=1)
    yield calls
    await calls.close()


async def test_gives_the_result_with_the_callers_context(calls: BlockingCalls) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("r-1")
    assert await calls.run(lambda prefix, end: prefix + request.get() + end, "<", end=">") == "<r-1>"


async def test_passes_the_error_on(calls: BlockingCalls) -> None:
    with pytest.raises(ZeroDivisionError):
        await calls.run(divmod, 1, 0)


async def test_a_cancelled_call_is_waited_for(calls: BlockingCalls) -> None:
    step = Step()
    task = asyncio.create_task(calls.run(step))
    await step.running()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    step.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.ended


async def test_cancelling_again_does_not_cut_the_wait_short(calls: BlockingCalls) -> None:
    step = Step()
    task = asyncio.create_task(calls.run(step))
    await step.running()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    step.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.ended


async def test_a_call_that_fails_after_its_cancellation_still_counts_as_cancelled(calls: BlockingCalls) -> None:
    step = Step()

    def fail() -> None:
        step()
        raise OSError("too late")

    task = asyncio.create_task(calls.run(fail))
    await step.running()
    task.cancel()
    step.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_cancelled_while_it_queues_never_runs(calls: BlockingCalls) -> None:
    first, second = Step(), Step()
    running = asyncio.create_task(calls.run(first))
    await first.running()
    queued = asyncio.create_task(calls.run(second))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    first.may_end.set()
    assert await running == "done"
    assert not second.begun.is_set()
