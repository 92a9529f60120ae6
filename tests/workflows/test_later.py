"""Later, where a server is busy for long. That it asks at all is in the tests of moves and of the shelf."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import workflows.later
from activities.interfaces.later import LaterCall
from hostler.contract.errors import InvalidState, ServerBusy
from hostler.contract.servers import OperationName
from tests.conftest import free_port, make_namespace, run_temporal
from workflows.later import Later, LaterRequest

BUSY_TIMES = 12


@pytest.fixture
def impatient_server() -> Iterator[str]:
    """A Temporal server to which a history is long that is short elsewhere."""
    with run_temporal(free_port(), "--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=40") as address:
        yield address


async def test_it_goes_on_anew_before_its_history_grows_too_long(
    impatient_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows.later, "BUSY_PAUSE", timedelta(milliseconds=20))
    namespace = await make_namespace(impatient_server)
    client = await Client.connect(impatient_server, namespace=namespace, data_converter=pydantic_data_converter)
    asked: list[str] = []

    @activity.defn
    async def ask_for_operation(call: LaterCall) -> None:
        asked.append(call.request_id)
        error = ServerBusy("it is held") if len(asked) <= BUSY_TIMES else InvalidState("it is confirmed")
        raise error.to_application_error()

    request = LaterRequest(
        operation=OperationName.CONFIRM_RESIZE,
        server_id=str(uuid4()),
        project="default",
        subject=str(uuid4()),
        at=datetime.now(UTC),
    )
    worker = Worker(
        client,
        task_queue="control",
        workflows=[Later],
        activities=[ask_for_operation],
        workflow_runner=UnsandboxedWorkflowRunner(),  # in the sandbox its pauses are those of production
    )
    async with worker:
        first = await client.start_workflow(Later.run, request, id="later", task_queue="control")
        await first.result()

    runs = [request_id[:36] for request_id in asked]
    assert len(asked) == len(set(asked)) == BUSY_TIMES + 1
    assert runs[0] == first.result_run_id
    assert len(set(runs)) > 1
