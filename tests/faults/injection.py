"""The faults themselves, as interceptors of Temporal's workers: the product has no line of them.

On the workflow's side the step that is to be struck is marked, and its time-outs and retry intervals are shortened,
so that nobody waits a minute for what is the same after two seconds. On the activity's side the marked step suffers.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

import temporalio.client
import temporalio.worker
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from hostler.client.connection import Connection
from hostler.client.operation import begin
from hostler.contract.servers import DeleteRequest, OperationName
from hostler.settings import Settings
from tests.faults.plan import LONG, OF_MACHINES, TIMED_OUT, Book, Fault, Strike, Struck

MARK = "fault"
TIMEOUT = timedelta(seconds=2)
"""The start-to-close time-out of a step that hangs, or whose worker dies."""
ANSWER = timedelta(seconds=1.5)
"""How long a dead host is waited for."""
LATE_SECONDS = TIMEOUT.total_seconds() + 1
AGAIN = timedelta(milliseconds=100)
POLL_SECONDS = 0.05

Perform = Callable[[], Awaitable[Any]]
Shorten = Callable[[temporalio.worker.StartActivityInput, Fault], None]


def shorten(input: temporalio.worker.StartActivityInput, fault: Fault) -> None:
    """Shorten the time-outs of a step that is to be struck."""
    if fault in TIMED_OUT:
        input.start_to_close_timeout, input.heartbeat_timeout = TIMEOUT, None
    if fault is Fault.DEAD and input.schedule_to_start_timeout is not None:
        input.schedule_to_start_timeout = ANSWER  # also of the tries that come when it is dead


class Injector(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Enters a worker by way of its Temporal client, before every other interceptor."""

    def __init__(self, book: Book, settings: Settings, shorten: Shorten = shorten) -> None:
        self.book = book
        self.settings = settings
        self.shorten = shorten
        self.client: temporalio.client.Client | None = None

    def enter(self, client: temporalio.client.Client) -> temporalio.client.Client:
        """The same client, with the faults in it."""
        self.client = client
        config = client.config()
        config["interceptors"] = [self, *config["interceptors"]]
        return temporalio.client.Client(**config)

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        """Nor does whoever asks a host without a workflow wait for one that is away."""
        return _Client(next, self.book)

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        """Put the faults before `next`."""
        return _Activities(next, self)

    def workflow_interceptor_class(
        self, input: temporalio.worker.WorkflowInterceptorClassInput
    ) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        """What marks the steps of workflows."""
        injector = self

        class Inbound(temporalio.worker.WorkflowInboundInterceptor):
            def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
                super().init(_Outbound(outbound, injector))

        return Inbound


class _Client(temporalio.client.OutboundInterceptor):
    def __init__(self, next: temporalio.client.OutboundInterceptor, book: Book) -> None:
        super().__init__(next)
        self._book = book

    async def start_activity(
        self, input: temporalio.client.StartActivityInput
    ) -> temporalio.client.ActivityHandle[Any]:
        if input.schedule_to_start_timeout is not None and input.task_queue in self._book.away():
            input.schedule_to_start_timeout = ANSWER
        return await super().start_activity(input)


class _Outbound(temporalio.worker.WorkflowOutboundInterceptor):
    """Marks steps. Options of an activity are no part of what a replay compares, so it may look at files."""

    def __init__(self, next: temporalio.worker.WorkflowOutboundInterceptor, injector: Injector) -> None:
        super().__init__(next)
        self._book = injector.book
        self._shorten = injector.shorten
        self._seen: Counter[str] = Counter()

    def start_activity(self, input: temporalio.worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        self._seen[input.activity] += 1
        plan, info = self._book.plan(), workflow.info()
        if plan is not None and (plan.workflow, plan.workflow_id) == (info.workflow_type, info.workflow_id):
            number = plan.find(input.activity, self._seen[input.activity])
            if number is not None and not any(one.number == number for one in self._book.struck()):
                self._mark(input, number, plan.strikes[number])
        if input.schedule_to_start_timeout is not None and input.task_queue in self._book.away():
            input.schedule_to_start_timeout = ANSWER
        return super().start_activity(input)

    def _mark(self, input: temporalio.worker.StartActivityInput, number: int, strike: Strike) -> None:
        input.headers = {**input.headers, MARK: Payload(data=str(number).encode())}
        input.retry_policy = replace(
            input.retry_policy or RetryPolicy(), initial_interval=AGAIN, backoff_coefficient=1, maximum_interval=AGAIN
        )
        self._shorten(input, strike.fault)


class _Activities(temporalio.worker.ActivityInboundInterceptor):
    def __init__(self, next: temporalio.worker.ActivityInboundInterceptor, injector: Injector) -> None:
        super().__init__(next)
        self._injector = injector

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
        async def perform() -> Any:
            return await self.next.execute_activity(input)

        mark, plan = input.headers.get(MARK), self._injector.book.plan()
        if mark is None or plan is None:
            return await perform()
        number = int(mark.data)
        strike, info = plan.strikes[number], activity.info()
        # By what struck, not by Temporal's count: where the machine is slow, a first try may never have come here.
        struck_before = sum(one.number == number for one in self._injector.book.struck())
        if struck_before >= (LONG if strike.fault is Fault.FAILS_LONG else 1):
            return await perform()
        assert info.workflow_type is not None
        assert info.workflow_run_id is not None
        struck = Struck(
            number, info.workflow_type, info.workflow_run_id, info.activity_type, info.attempt, info.task_queue
        )
        self._injector.book.enter(struck)
        return await self._suffer(strike, perform, struck)

    async def _suffer(self, strike: Strike, perform: Perform, struck: Struck) -> Any:
        fault = strike.fault
        if fault in OF_MACHINES:
            return await self._befallen(perform, struck)
        match fault:
            case Fault.BEFORE | Fault.FAILS_LONG:
                raise _failure()
            case Fault.BEFORE_FINAL:
                raise _failure(final=True)
            case Fault.AFTER | Fault.AFTER_FINAL:
                await perform()
                raise _failure(final=fault is Fault.AFTER_FINAL)
            case Fault.TWICE:
                return (await asyncio.gather(perform(), perform()))[1]
            case Fault.HANG:
                return await asyncio.Event().wait()
            case Fault.LATE:
                return await self._late(perform, struck)
            case Fault.KILLED:
                if strike.delay:
                    await asyncio.wait({asyncio.ensure_future(perform())}, timeout=strike.delay)
                _die()
            case Fault.KILLED_AFTER | Fault.DEAD:
                with suppress(Exception):  # a step may have nothing to do, and say so
                    await perform()
                if fault is Fault.DEAD:
                    self._injector.book.leave(struck.queue)
                _die()
            case Fault.CANCELLED:
                await self._cancel()
                return await perform()
            case Fault.DELETED:
                await self._delete()
                return await perform()

    async def _befallen(self, perform: Perform, struck: Struck) -> Any:
        """It goes on for at least as long as it takes to befall its machine."""

        async def done() -> Any:
            try:
                return await perform()
            finally:
                self._injector.book.enter(replace(struck, done=True))

        results = await asyncio.gather(done(), self._dealt(), return_exceptions=True)
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    async def _dealt(self) -> None:
        while not self._injector.book.dealt():  # noqa: ASYNC110 - who deals it is another process
            await asyncio.sleep(POLL_SECONDS)

    async def _late(self, perform: Perform, struck: Struck) -> Any:
        try:
            await asyncio.sleep(LATE_SECONDS)
            return await perform()
        finally:
            self._injector.book.enter(replace(struck, done=True))

    async def _cancel(self) -> None:
        await self._run().cancel()

    async def _delete(self) -> None:
        """Ask for the deletion; returns when the operation has heard of it, whether it has answered or not."""
        client, info = self._injector.client, activity.info()
        assert client is not None
        assert info.workflow_id is not None
        settings = self._injector.settings
        request = DeleteRequest(
            server_id=info.workflow_id.partition(":")[2], request_id=str(uuid4()), project=settings.project
        )
        connection = Connection(client, settings, settings.project)
        heard = await self._updates()
        asking = asyncio.create_task(
            begin(connection, OperationName.DELETE, request, summary="delete", server_name=None)
        )
        _ASKING.add(asking)  # it may be answered only after this step has ended
        while not asking.done() and await self._updates() == heard:  # noqa: ASYNC110 - a history tells nobody
            await asyncio.sleep(POLL_SECONDS)

    async def _updates(self) -> int:
        with suppress(temporalio.service.RPCError):
            events = [event async for event in self._run().fetch_history_events()]
            return sum(event.HasField("workflow_execution_update_accepted_event_attributes") for event in events)
        return 0

    def _run(self) -> temporalio.client.WorkflowHandle[Any, Any]:
        client, info = self._injector.client, activity.info()
        assert client is not None
        assert info.workflow_id is not None
        return client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)


_ASKING: set["asyncio.Task[Any]"] = set()


def _failure(*, final: bool = False) -> ApplicationError:
    return ApplicationError("a fault of the matrix", type="InjectedFault", non_retryable=final)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives this")
