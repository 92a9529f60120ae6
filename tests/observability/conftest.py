"""A cloud of real processes that was watched through some eventful operations: its metrics, traces and logs.

One server's boot is refused by its first host, which then owes its clean-up. Its stop fails, holds, is overdue, and
goes on by an operator's decision. Another boot is refused. A third server is deleted. At the end the first server's
allocation is lost, which the audit finds.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlmodel import col, delete
from temporalio.client import Client as TemporalClient

from hostler import Client, NotFound, tracing
from hostler.contract.servers import OnFailure, OperationName, StepStatus
from hostler.settings import Settings, SimulatedFault, SimulatedSettings, TracingSettings
from models import Allocation
from tests.cloud import DEMO, NET, TINY
from tests.conftest import free_port
from tests.observability.collector import Collector, run_collector
from tests.observability.exposition import Metrics
from tests.processes.cloud import LIMIT, process_cloud

FIRST, SECOND = "sim-1-1", "sim-1-2"
SECRET = "hunter2-in-user-data"
FAULTS = [
    SimulatedFault(host=FIRST, call="spawn", kind="reschedule", message="no room after all", times=1),
    SimulatedFault(host=FIRST, call="destroy", kind="error", message="destroy broke", times=-1),
    SimulatedFault(host=SECOND, call="stop", kind="error", message="stop broke", times=3),
]


@dataclass(frozen=True)
class Observed:
    """What could be seen: metrics while an operation held, and at the end; the boot; all log lines and all runs."""

    held: Metrics
    control: Metrics
    host: Metrics
    server_id: str
    collector: Collector
    logs: list[dict[str, Any]]
    runs: list[str]

    def exported(self) -> set[str]:
        """Every name that a worker exports."""
        return self.held.names() | self.control.names() | self.host.names()


@pytest.fixture(scope="session")
def observed() -> Iterator[Observed]:
    """What was seen."""
    with tempfile.TemporaryDirectory(prefix="hostler-observed-", dir="/var/tmp") as directory:
        yield asyncio.run(_observe(Path(directory)))


async def _observe(directory: Path) -> Observed:
    control_port, host_port = free_port(), free_port()
    async with run_collector() as collector:
        environment = {
            "HOSTLER_METRICS__CONTROL_PORT": str(control_port),
            "HOSTLER_METRICS__HOST_PORT": str(host_port),
            "HOSTLER_TRACING__ENDPOINT": collector.endpoint,
            "HOSTLER_OPERATIONS__OVERDUE": json.dumps({"stop": 1}),
            "HOSTLER_AUDIT__INTERVAL": "3",
            "HOSTLER_AUDIT__HEAL": "false",
            "HOSTLER_LOG__FORMAT": "json",
            "HOSTLER_LOG__LEVEL": "debug",
        }
        simulated = SimulatedSettings(faults=FAULTS)
        async with process_cloud(directory, hosts=(2,), simulated=simulated, environment=environment) as cloud:
            traced = cloud.settings.model_copy(update={"tracing": TracingSettings(endpoint=collector.endpoint)})
            async with await Client.connect(traced) as client:
                server_id = await _boot_at_second_attempt(client)
                held = await _hold_and_decide(client, server_id, control_port)
                await _refused_and_deleted(client)
            with cloud.database.write() as session:
                session.exec(delete(Allocation).where(col(Allocation.server_id) == server_id))
            control = await scraped(control_port, lambda seen: seen.value("hostler_audit_unhealed") == 1)
            host = await scraped(host_port)
            runs = await _runs(cloud.settings)
            for process in (*cloud.controls, *cloud.hosts):
                await asyncio.to_thread(process.stop)
            await asyncio.to_thread(tracing.flush)
            logs = [line for process in (*cloud.controls, *cloud.hosts) for line in _lines(process.log)]
    return Observed(held, control, host, server_id, collector, logs, runs)


async def _boot_at_second_attempt(client: Client) -> str:
    """Build a server. Its first host refuses it, and cannot clean up."""
    await client.hosts.disable(SECOND)
    boot = await client.servers.boot(
        "web", flavor=TINY, image=DEMO, networks=[NET], user_data=SECRET.encode(), metadata={"note": SECRET}
    )
    async for progress in boot.follow():
        if any(step.status is StepStatus.UNDOING for step in progress.steps):
            await client.hosts.enable(SECOND)
            break
    server = await boot.result(LIMIT)
    assert server.host == SECOND
    return server.id


async def _hold_and_decide(client: Client, server_id: str, control_port: int) -> Metrics:
    """Stop the server: it holds, until it is overdue. What the metrics say of it then."""
    stop = await client.servers.stop(server_id, on_failure=OnFailure.HOLD)
    held = await scraped(
        control_port,
        lambda seen: seen.value("hostler_operations_held") == 1 and seen.value("hostler_operations_overdue") == 1,
    )
    await client.operations.retry(server_id, note="again")
    await stop.result(LIMIT)
    return held


async def _refused_and_deleted(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.servers.boot("none", flavor="no-such-flavor", image=DEMO, networks=[NET])
    short = await (await client.servers.boot("short", flavor=TINY, image=DEMO, networks=[NET])).result(LIMIT)
    await (await client.servers.delete(short.id)).result(LIMIT)


async def _runs(settings: Settings) -> list[str]:
    """The runs of operations, as Temporal lists them."""
    temporal = await TemporalClient.connect(settings.temporal.address, namespace=settings.temporal.namespace)
    names = {operation.value for operation in OperationName}
    return [
        f"{run.workflow_type} {run.id} {run.run_id} {run.status.name if run.status else None} {run.start_time}"
        async for run in temporal.list_workflows("")
        if run.workflow_type in names
    ]


async def scraped(port: int, condition: Callable[[Metrics], bool] = lambda _: True) -> Metrics:
    """The metrics at this port, once they are so."""
    async with asyncio.timeout(LIMIT.total_seconds()), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                answer.raise_for_status()
                metrics = Metrics(await answer.text())
            if condition(metrics):
                return metrics
            await asyncio.sleep(0.5)


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        yield json.loads(line)
