"""A run is counted and logged once: also when Temporal has its last task done twice, or it leaves a worker's cache."""

import logging
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from activities.interfaces.servers import EventLog
from hostler.contract.servers import Choice, Decision, OperationName
from hostler.settings import Settings
from tests.conftest import free_port
from tests.observability.conftest import scraped
from tests.observability.exposition import Metrics
from workers.metrics import make_runtime
from workflows.holding import Holder
from workflows.telemetry import OperationTelemetry

STEP = "spawn"


class Stumbles(Interceptor):
    """Fails the last task of the first run, after all that it does: as when Temporal does not take its completion."""

    stumbled = False

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _Stumbling


class _Stumbling(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        await super().execute_workflow(input)
        if not Stumbles.stumbled:
            Stumbles.stumbled = True
            raise RuntimeError("stumbles")


@workflow.defn(name="deciding")
class Deciding(Holder):
    """Ends with the first decision."""

    operation = OperationName.BOOT

    @workflow.init
    def __init__(self) -> None:
        super().__init__("boot", "a server", [STEP])
        self.decided = False

    def accepted(self) -> bool:
        return True

    def event_log(self, closing: str | None) -> EventLog:
        raise NotImplementedError

    @workflow.update(name="decide")
    async def decide(self, decision: Decision) -> None:  # type: ignore[override]  # what it answers does not matter
        self.decided = True

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.decided)


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "temporalio.workflow")


@pytest.fixture
def port() -> int:
    """Where the metrics are."""
    return free_port()


@pytest.fixture
async def client(temporal_server: str, namespace: str, tmp_path: Path, port: int) -> Client:
    runtime = make_runtime(Settings(state_dir=tmp_path), "metrics.control_port", port)
    return await Client.connect(
        temporal_server, namespace=namespace, runtime=runtime, data_converter=pydantic_data_converter
    )


async def decide(client: Client, *interceptors: Interceptor, cached: int = 1000) -> None:
    """One run, on a worker that keeps as many of them in its cache."""
    async with Worker(
        client,
        task_queue="telemetry",
        workflows=[Deciding],
        interceptors=[*interceptors, OperationTelemetry()],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=cached,
    ):
        run = await client.start_workflow("deciding", id="deciding", task_queue="telemetry")
        await run.execute_update("decide", Decision(choice=Choice.RETRY))
        await run.result()


async def test_one_whose_last_task_is_done_twice(client: Client, port: int, caplog: pytest.LogCaptureFixture) -> None:
    await decide(client, Stumbles())
    assert Stumbles.stumbled
    check(await scraped(port), caplog)


async def test_one_that_leaves_the_cache_with_each_task(
    client: Client, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    await decide(client, cached=0)
    check(await scraped(port), caplog)


def check(seen: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    """All of a run is there once."""
    mine = {"operation": "deciding"}
    assert seen.value("hostler_operations_started_total", **mine) == 1
    assert seen.value("hostler_decisions_total", **mine) == 1
    assert seen.value("hostler_operations_total", **mine) == 1
    assert seen.value("hostler_operation_duration_seconds_count", **mine) == 1
    assert len([record for record in caplog.records if record.getMessage().startswith("completed")]) == 1
