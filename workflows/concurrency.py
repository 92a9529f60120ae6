"""Waiting for several things, and for what must not be interrupted."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from temporalio import workflow

Result = TypeVar("Result")


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` whatever cancellation arrives meanwhile: it must not stop half-way."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


async def together(*work: Awaitable[Any]) -> list[Any]:
    """Run at the same time, and let each come to its end before the first failure is raised.

    So that no step still runs when the undo begins; a cancellation reaches all of them.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    cancelled = False
    while not all(task.done() for task in tasks):
        try:
            await workflow.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
            for task in tasks:
                task.cancel()
    if cancelled:
        raise asyncio.CancelledError
    return [task.result() for task in tasks]
