"""All servers of a simulated host that takes no time: drained, and evacuated. Beside the boots that put them there."""

import asyncio
import time
from collections.abc import Mapping

from deploy.bench.cloud import Cloud, cloud

DRAINED, EVACUATED, IN_FLIGHT = 20, 100, 10
FULL = "sim-1"


async def measure() -> dict[str, Mapping[str, float]]:
    """Servers a second, and their ratio to boots a second, as many at once."""
    async with cloud(hosts=3) as here:
        boots = await fill(here, DRAINED)
        began = time.perf_counter()
        drain = await here.client.hosts.drain(FULL, parallel=IN_FLIGHT)
        drained = len((await drain.result()).moved)
        drains = rates(drained, DRAINED, time.perf_counter() - began, boots)
    async with cloud(hosts=3) as here:
        boots = await fill(here, EVACUATED)
        await here.silence(FULL)
        began = time.perf_counter()
        evacuation = await here.client.hosts.evacuate(FULL, parallel=IN_FLIGHT, force=True)
        evacuated = len((await evacuation.result()).moved)
        return {"drain": drains, "evacuate": rates(evacuated, EVACUATED, time.perf_counter() - began, boots)}


async def fill(here: Cloud, count: int) -> float:
    """Boot so many servers on the one host; how many a second."""
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def boot() -> None:
        async with turns:
            await here.boot(FULL)

    await boot()  # the first one fetches the image
    began = time.perf_counter()
    await asyncio.gather(*(boot() for _ in range(count - 1)))
    return (count - 1) / (time.perf_counter() - began)


def rates(moved: int, of: int, seconds: float, boots: float) -> dict[str, float]:
    """The figures of one."""
    return {
        "servers": moved,
        "left": of - moved,
        "seconds": round(seconds, 2),
        "servers_per_second": round(moved / seconds, 2),
        "boots_per_second": round(boots, 2),
        "ratio": round(moved / seconds / boots, 2),
    }


def run() -> dict[str, Mapping[str, float]]:
    """Measure."""
    return asyncio.run(measure())
