"""Boots on a simulated host that takes no time, against the bare workflow: how many a second, and how long one takes.

Both sides use the same server, queues and workers, in turns, so that what else the machine does hits both alike.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from temporalio.api.enums.v1 import EventType

from deploy.bench.baseline import Baseline, Shape
from deploy.bench.cloud import Cloud, cloud
from hostler.contract.names import CONTROL_QUEUE, host_queue, server_workflow_id

BOOTS, IN_FLIGHT, ROUNDS = 50, 10, 4
SINGLE = 40

Work = Callable[[], Awaitable[object]]


async def measure() -> dict[str, object]:
    """The figures of both."""
    async with cloud() as here:
        shape = await shape_of(here, await here.boot())

        async def bare() -> None:
            await here.temporal.execute_workflow(Baseline.run, shape, id=f"bare-{uuid4()}", task_queue=CONTROL_QUEUE)

        await bare()
        rates = [(await per_second(here.boot), await per_second(bare)) for _ in range(ROUNDS)]
        times = [(await seconds(here.boot), await seconds(bare)) for _ in range(SINGLE)]
    return {"activities": shape.control + shape.host, "throughput": throughput(rates), "latency": latency(times)}


async def shape_of(here: Cloud, server_id: str) -> Shape:
    """As many activities as the boot of `server_id` had, by its own history."""
    history = await here.temporal.get_workflow_handle(server_workflow_id(server_id)).fetch_history()
    scheduled = [
        event.activity_task_scheduled_event_attributes.task_queue.name
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    queue = host_queue(here.host_id)
    return Shape(control=scheduled.count(CONTROL_QUEUE), host=scheduled.count(queue), host_queue=queue)


async def per_second(work: Work) -> float:
    """How many a second, `BOOTS` of them, `IN_FLIGHT` at once."""
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with turns:
            await work()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(BOOTS)))
    return BOOTS / (time.perf_counter() - began)


async def seconds(work: Work) -> float:
    """How long one takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def throughput(rates: list[tuple[float, float]]) -> dict[str, float]:
    """The medians over the rounds; the ratio is that of each round."""
    boots, bare = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(boot / base for boot, base in rates)
    return {"boots_per_second": round(boots, 2), "bare_per_second": round(bare, 2), "ratio": round(ratio, 2)}


def latency(times: list[tuple[float, float]]) -> dict[str, float]:
    """Both sides' p50 and p95 in milliseconds, and their ratios."""
    figures: dict[str, float] = {}
    sides = [statistics.quantiles(side, n=20) for side in zip(*times, strict=True)]
    for name, cut in (("p50", 9), ("p95", 18)):
        boot, bare = (side[cut] * 1000 for side in sides)
        figures |= {f"boot_{name}_ms": round(boot, 1), f"bare_{name}_ms": round(bare, 1)}
        figures[f"ratio_{name}"] = round(boot / bare, 2)
    return figures


def run() -> dict[str, object]:
    """Measure."""
    return asyncio.run(measure())
