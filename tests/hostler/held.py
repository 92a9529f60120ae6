"""Operations that hold, in a cloud of real workers."""

import asyncio
from typing import Any

from temporalio.exceptions import ApplicationError

from hostler.client import Operation
from hostler.contract.servers import Hold, OnFailure
from tests.cloud import LIMIT, Cloud

ON_FIRE = ApplicationError("the disk is on fire", type="DiskFault", non_retryable=True)


async def held_boot(cloud: Cloud, name: str = "web", **options: Any) -> Operation:
    """A boot that holds at `spawn` on sim-1, and shows in Temporal's index."""
    cloud.stage.fail("spawn", ON_FIRE)
    boot = await cloud.boot(name, on_failure=OnFailure.HOLD, max_attempts=1, **options)
    await holding(boot)
    await indexed(cloud, boot.server_id)
    return boot


async def holding(operation: Operation) -> Hold:
    """The hold at which the operation arrives."""
    async for progress in operation.follow():
        if progress.hold is not None:
            return progress.hold
    raise AssertionError("it ended without a hold")


async def indexed(cloud: Cloud, server_id: str, filter: str = "HostlerHeld = true") -> None:
    """Return when Temporal's index, which lags behind, has the server's operation under the filter."""
    query = f"HostlerServer = '{server_id}' AND ({filter})"
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not (await cloud.temporal.count_workflows(query)).count:
            pass
