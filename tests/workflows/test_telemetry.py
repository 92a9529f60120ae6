"""Temporal may have a workflow's last task done twice: the run that ends in it is counted and logged once."""

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


async def test_what_is_done_twice_is_counted_and_logged_once(
    temporal_server: str, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "temporalio.workflow")
    port = free_port()
    runtime = make_runtime(Settings(state_dir=tmp_path), "metrics.control_port", port)
    client = await Client.connect(
        temporal_server, namespace=namespace, runtime=runtime, data_converter=pydantic_data_converter
    )
    async with Worker(
        client,
        task_queue="telemetry",
        workflows=[Deciding],
        interceptors=[Stumbles(), OperationTelemetry()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        run = await client.start_workflow("deciding", id="deciding", task_queue="telemetry")
        await run.execute_update("decide", Decision(choice=Choice.RETRY))
        await run.result()
        seen = await scraped(port)
    assert Stumbles.stumbled
    mine = {"operation": "deciding"}
    assert seen.value("hostler_operations_started_total", **mine) == 1
    assert seen.value("hostler_decisions_total", **mine) == 1
    assert seen.value("hostler_operations_total", **mine) == 1
    assert seen.value("hostler_operation_duration_seconds_count", **mine) == 1
    assert len([record for record in caplog.records if record.getMessage().startswith("completed")]) == 1
