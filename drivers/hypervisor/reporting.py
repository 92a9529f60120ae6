"""Heartbeats of a step of which nothing can be heard for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from drivers.hypervisor.base import Report

INTERVAL = timedelta(seconds=2)


@asynccontextmanager
async def reporting(report: Report, say: Callable[[], str]) -> AsyncIterator[None]:
    """Report what `say` says now, at once and every few seconds until the block ends."""

    async def repeat() -> None:
        while True:
            report(say())
            await asyncio.sleep(INTERVAL.total_seconds())

    task = asyncio.create_task(repeat(), name="reports")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
