"""All servers of a simulated host that takes no time: drained, and evacuated. Beside the boots that put them there.

Before an evacuation the silent host is asked once more, until `timeouts.host_answer` is over; that is told apart.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from deploy.bench.cloud import Cloud, cloud

DRAINED, EVACUATED, IN_FLIGHT = 20, 100, 10
FULL = "sim-1"
BEGIN = "begin_evacuation"


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
        asked = datetime.now(UTC)
        evacuation = await here.client.hosts.evacuate(FULL, parallel=IN_FLIGHT, force=True)
        moved = [server.server_id for server in (await evacuation.result()).moved]
        first, last = await first_and_last(here, moved)
        evacuations = rates(len(moved), EVACUATED, (last - first).total_seconds(), boots)
    sure = {"seconds_until_sure": round((first - asked).total_seconds(), 2)}
    return {"drain": drains, "evacuate": sure | evacuations}


async def first_and_last(here: Cloud, servers: Sequence[str]) -> tuple[datetime, datetime]:
    """When the first evacuation of these servers began, and the last one ended."""
    events = [event.step for server in servers for event in await here.client.servers.events(server)]
    began = [step.started_at for step in events if step.name == BEGIN and step.started_at]
    return min(began), max(step.finished_at for step in events if step.finished_at)


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
