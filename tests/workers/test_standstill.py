"""A worker that stands still for longer than the SDK allows by itself."""

import time
from datetime import timedelta
from uuid import uuid4

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from workers.standstill import patient

STANDS_STILL = 2.5
"""Seconds: the SDK allows two."""


@workflow.defn
class StandsStill:
    """Once, as if the machine did."""

    stood_still = False

    @workflow.run
    async def run(self) -> None:
        """Stand still, and go on."""
        if not StandsStill.stood_still:
            StandsStill.stood_still = True
            time.sleep(STANDS_STILL)  # noqa: ASYNC251 - that is the point
        await workflow.sleep(timedelta(milliseconds=1))


async def test_a_run_whose_worker_stood_still_goes_on(temporal_server: str, namespace: str) -> None:
    client = await Client.connect(temporal_server, namespace=namespace)
    queue = str(uuid4())
    worker = Worker(client, task_queue=queue, workflows=[StandsStill], workflow_runner=UnsandboxedWorkflowRunner())
    async with patient(worker):
        handle = await client.start_workflow(StandsStill.run, id=queue, task_queue=queue)
        await handle.result()
    history = await handle.fetch_history()
    assert not [event for event in history.events if event.HasField("workflow_task_failed_event_attributes")]
