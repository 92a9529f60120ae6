"""The connection to Temporal, and the calls that go over it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import temporalio.client
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from hostler import temporal as service
from hostler import tracing
from hostler.client.errors import START_TEMPORAL, from_rpc_error, typed
from hostler.contract.calls import Call, Request, Result
from hostler.contract.errors import DecryptionFailed, Unavailable
from hostler.contract.names import CONTROL_QUEUE
from hostler.settings import Settings

T = TypeVar("T")

RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=100),
    backoff_coefficient=3,
    maximum_interval=timedelta(seconds=2),
    maximum_attempts=6,
)
# A worker's poll lasts a minute; one that began longer ago is a dead worker's.
POLL = timedelta(seconds=75)
SETTLE_S = 0.02


@dataclass(frozen=True)
class Connection:
    """A Temporal client with what every call needs to know.

    After `patience` without an answer a worker must at least be there; after `limit` it must have answered.
    """

    temporal: temporalio.client.Client
    settings: Settings
    project: str
    patience: timedelta = timedelta(seconds=10)
    limit: timedelta = timedelta(seconds=60)

    @property
    def address(self) -> str:
        """Temporal's host and port."""
        return self.settings.temporal.address

    async def call(
        self,
        call: Call[Request, Result],
        request: Request,
        *,
        queue: str = CONTROL_QUEUE,
        worker: str = "control worker",
        remedy: str = "start one: hostler worker control",
        patience: timedelta | None = None,
    ) -> Result:
        """The answer of whoever serves `queue`.

        Raises:
            HostlerError: what the worker answered; `Unavailable` when none did.
        """
        subject = getattr(request, "ref", None) or getattr(request, "name", None)
        work = self.temporal.execute_activity(
            call.name,
            request,
            id=f"{call.name}:{uuid4()}",
            task_queue=queue,
            result_type=call.result,
            start_to_close_timeout=self.limit / 3,
            schedule_to_close_timeout=self.limit,
            retry_policy=RETRY,
            summary=f"{call.name} {subject}" if subject else call.name,
        )
        result: Result = await self.answered(
            work,
            queue,
            TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            worker=worker,
            remedy=remedy,
            patience=patience,
        )
        return result

    async def answered(
        self,
        work: Coroutine[Any, Any, T],
        queue: str = CONTROL_QUEUE,
        kind: TaskQueueType.ValueType = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        *,
        worker: str = "control worker",
        remedy: str = "start one: hostler worker control",
        patience: timedelta | None = None,
        endless: bool = False,
    ) -> T:
        """Await `work`, but not for ever when nobody is there to do it.

        Raises:
            HostlerError: what `work` ended with; `Unavailable` when no worker polls `queue`, or none answers within
                `limit`. With `endless` a worker that is there may take its time.
        """
        patience = patience or self.patience
        waited = timedelta(0)
        task = asyncio.ensure_future(work)
        try:
            with typed(self.address):
                while not (await asyncio.wait({task}, timeout=patience.total_seconds()))[0]:
                    waited += patience
                    if not await self._polled(queue, kind):
                        raise Unavailable(f"no {worker} answered within {_seconds(waited)}", remedy=remedy)
                    if waited >= self.limit and not endless:
                        raise Unavailable(
                            f"the {worker} is there but did not answer within {_seconds(waited)}",
                            remedy="it may be overloaded: look at its log, and at its task queue in Temporal",
                        )
                return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _polled(self, queue: str, kind: TaskQueueType.ValueType) -> bool:
        answer = await self.temporal.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self.temporal.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
            ),
            retry=True,
        )
        since = datetime.now(UTC) - POLL
        return any(poller.last_access_time.ToDatetime(UTC) > since for poller in answer.pollers)


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():g} s"


async def settle() -> None:
    """Let Temporal's threads return from the calls that they have just answered.

    One that is still in Python when the interpreter ends makes it abort (temporalio/sdk-python#300).
    """
    await asyncio.sleep(SETTLE_S)


async def connect(settings: Settings, project: str) -> Connection:
    """Connect to Temporal.

    Raises:
        Unavailable: nothing answers at the settings' address, or TLS does not come about.
        InvalidRequest: keys, certificates or an endpoint for traces that cannot be used.
        DecryptionFailed: the cloud encrypts with a key that we do not have.
    """
    address = settings.temporal.address
    try:
        temporal = await service.connect(settings, interceptors=tracing.interceptors(settings.tracing, "client"))
    except RuntimeError as error:
        await settle()
        if settings.temporal.tls.enabled:
            raise Unavailable(
                f"Temporal does not answer at {address} with TLS: {error}",
                field="temporal.tls",
                remedy="see that it is there and speaks TLS, that temporal.tls.server_ca has its certificate's "
                "authority and, for mutual TLS, that it trusts that of temporal.tls.client_cert",
            ) from error
        raise Unavailable(f"Temporal does not answer at {address}", remedy=START_TEMPORAL) from error
    except RPCError as error:
        raise from_rpc_error(error, address) from error
    except DecryptionFailed:
        await settle()
        raise
    return Connection(temporal, settings, project)
