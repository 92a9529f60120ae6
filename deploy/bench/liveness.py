"""What it costs to know which of many hosts are up: listing workers, against describing each host's task queue.

The hosts are heartbeats and polls without workers behind them, sent to a Temporal server of the measurement's own;
each heartbeat is a copy of a real worker's. Run it by itself to see the figures as JSON.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    ListWorkersRequest,
    PollActivityTaskQueueRequest,
    RecordWorkerHeartbeatRequest,
)
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Worker

from hostler.contract.names import host_queue
from hostler.settings import TemporalSettings
from workers import liveness, temporal_server

INTERVAL = timedelta(seconds=5)
ROUNDS = 3
REPEATS = 20
SETTLE = timedelta(seconds=5)
Figures = dict[str, float]


async def measure(hosts: int) -> dict[str, Figures | int]:
    """The figures for `hosts` hosts."""
    with tempfile.TemporaryDirectory() as directory:
        async with server(Path(directory)) as (client, process):
            template = await real_heartbeat(client)
            uuids = [str(uuid4()) for _ in range(hosts)]
            beating = await heartbeats(client, process, template, uuids)
            listing = await refreshes(client, process, uuids, lists_workers=True)
            async with polled(client, uuids):
                describing = await refreshes(client, process, uuids, lists_workers=False)
    listing["bytes"] = beating.pop("listed_bytes")
    describing["bytes"] = beating.pop("described_bytes") * hosts
    return {
        "hosts": hosts,
        f"heartbeats_every_{INTERVAL.total_seconds():g}_s": beating,
        "list_workers": listing,
        "describe_each_queue": describing,
    }


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[tuple[Client, psutil.Process]]:
    """A Temporal server as `hostler dev` starts it."""
    at = TemporalSettings(address="127.0.0.1:17533", ui_url="http://127.0.0.1:18533")
    words = temporal_server.command(temporal_server.find_binary(), at, directory / "temporal.db")
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL)
    try:
        yield await temporal_server.wait_ready(at), psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


@activity.defn
async def nothing() -> None:
    """What the template's worker serves."""


async def real_heartbeat(client: Client) -> WorkerHeartbeat:
    """What a real host worker sends."""
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
    beating = await Client.connect(
        client.service_client.config.target_host, namespace=client.namespace, runtime=runtime
    )
    async with Worker(beating, task_queue=host_queue(str(uuid4())), activities=[nothing]):
        await asyncio.sleep(3)
        answer = await client.workflow_service.list_workers(ListWorkersRequest(namespace=client.namespace))
        return answer.workers_info[0].worker_heartbeat


async def heartbeats(client: Client, process: psutil.Process, template: WorkerHeartbeat, hosts: list[str]) -> Figures:
    """Send each host's heartbeat in each interval, spread evenly, and see what that costs the server."""
    idle = await cpu_share(process)
    began, before = time.monotonic(), cpu_seconds(process)
    took: list[float] = []
    for number in range(ROUNDS * len(hosts)):
        await asyncio.sleep(began + number * INTERVAL.total_seconds() / len(hosts) - time.monotonic())
        request = heartbeat(client, template, hosts[number % len(hosts)])
        sent = time.monotonic()
        await client.workflow_service.record_worker_heartbeat(request)
        took.append(time.monotonic() - sent)
    share = (cpu_seconds(process) - before) / (time.monotonic() - began)
    listed = await client.workflow_service.list_workers(ListWorkersRequest(namespace=client.namespace))
    described = await client.workflow_service.describe_task_queue(describe(client, template.task_queue))
    return {
        "bytes_each": request.ByteSize(),
        "median_ms_each": round(1000 * sorted(took)[len(took) // 2], 2),
        "server_cpu_percent": round(100 * (share - idle), 1),
        "listed_bytes": listed.ByteSize(),
        "described_bytes": described.ByteSize(),
    }


def heartbeat(client: Client, template: WorkerHeartbeat, host: str) -> RecordWorkerHeartbeatRequest:
    """The next heartbeat of a host's worker."""
    beat = WorkerHeartbeat()
    beat.CopyFrom(template)
    beat.worker_instance_key = f"worker-{host}"
    beat.task_queue = host_queue(host)
    beat.heartbeat_time.GetCurrentTime()
    return RecordWorkerHeartbeatRequest(
        namespace=client.namespace, identity=beat.worker_identity, worker_heartbeat=[beat]
    )


def describe(client: Client, queue: str) -> DescribeTaskQueueRequest:
    """The request for a queue's pollers."""
    return DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )


async def poll(client: Client, host: str) -> None:
    """Poll a host's queue, as its idle worker does."""
    request = PollActivityTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=host_queue(host)), identity=f"worker-{host}"
    )
    while True:
        try:
            await client.workflow_service.poll_activity_task_queue(request, timeout=liveness.LONG_POLL)
        except RPCError:
            await asyncio.sleep(1)


@asynccontextmanager
async def polled(client: Client, hosts: list[str]) -> AsyncIterator[None]:
    """Keep a poll open on each host's queue."""
    polls = [asyncio.create_task(poll(client, host)) for host in hosts]
    try:
        yield
    finally:
        for task in polls:
            task.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


async def refreshes(client: Client, process: psutil.Process, hosts: list[str], *, lists_workers: bool) -> Figures:
    """What one refresh of a `Liveness` takes, on average, beyond what the server does anyway."""
    known = liveness.Liveness(client, timedelta(minutes=10), lambda: hosts)
    known._lists_workers = lists_workers
    async with asyncio.timeout(60):
        while known.alive() != frozenset(hosts):  # until all polls have arrived
            await known.refresh()
    await asyncio.sleep(SETTLE.total_seconds())
    background = await cpu_share(process)
    began, server_before, client_before = time.monotonic(), cpu_seconds(process), time.process_time()
    for _ in range(REPEATS):
        await known.refresh()
    took = time.monotonic() - began
    return {
        "ms": round(1000 * took / REPEATS, 1),
        "server_cpu_ms": round(1000 * (cpu_seconds(process) - server_before - background * took) / REPEATS, 1),
        "client_cpu_ms": round(1000 * (time.process_time() - client_before) / REPEATS, 1),
    }


async def cpu_share(process: psutil.Process) -> float:
    """The server's use of CPUs while nothing is asked of it."""
    before, seconds = cpu_seconds(process), 5.0
    await asyncio.sleep(seconds)
    return (cpu_seconds(process) - before) / seconds


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run(hosts: int = 1000) -> dict[str, Figures | int]:
    """Measure; takes about a minute."""
    return asyncio.run(measure(hosts))


if __name__ == "__main__":
    json.dump(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000), sys.stdout, indent=2)
    sys.stdout.write("\n")
