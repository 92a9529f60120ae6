"""Drains and evacuations of hosts: how they are asked for, followed and awaited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import uuid4

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError, RPCStatusCode

from hostler.client.connection import Connection
from hostler.client.errors import is_transient, met_a_closing_run, typed
from hostler.client.progress import QUERY, QUERY_TIMEOUT, TICK_S
from hostler.contract import calls
from hostler.contract.calls import Ref
from hostler.contract.errors import Cancelled, InvalidState, NotFound
from hostler.contract.host_work import (
    DRAIN_HOST,
    HOST_FAILURE,
    DrainRequest,
    DrainResult,
    HostFailureRequest,
    HostFailureResult,
    HostOutcome,
    HostProgress,
    HostWorkAccepted,
    HostWorkCall,
)
from hostler.contract.names import CONTROL_QUEUE, drain_workflow_id, host_failure_workflow_id

Outcome = TypeVar("Outcome", bound=HostOutcome)
UPDATE = "request"
TRIES = 5


class HostWork(Generic[Outcome]):
    """A drain or an evacuation. It goes on by itself, whether somebody waits for it or not.

    Attributes:
        host_id, host: the host's UUID and name.
        run_id: the Temporal run.
        joined: it ran already when it was asked for.
    """

    def __init__(
        self, connection: Connection, workflow_id: str, accepted: HostWorkAccepted, kind: type[Outcome]
    ) -> None:
        self.host_id = accepted.host_id
        self.host = accepted.host
        self.run_id = accepted.run_id
        self.joined = accepted.joined
        self._connection = connection
        self._handle: WorkflowHandle[Any, Outcome] = connection.temporal.get_workflow_handle(
            workflow_id, run_id=accepted.run_id, result_type=kind
        )

    async def result(self, timeout: timedelta | None = None) -> Outcome:
        """Wait for the end, and return what became of the servers.

        Raises:
            Cancelled: somebody cancelled it.
            HostlerError: why nothing was done.
            TimeoutError: it still runs after `timeout`, and goes on.
        """
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            try:
                with typed(self._connection.address):
                    return await self._handle.result()
            except Cancelled as error:
                raise Cancelled(
                    "it was cancelled: what was under way was undone; servers that had moved stay where they are, "
                    f"and host {self.host} stays as it is",
                    field="host",
                    value=self.host,
                    remedy="see what had moved: the same command with --status",
                ) from error

    async def progress(self) -> HostProgress:
        """How far it is, or was when it ended."""
        query = self._handle.query(QUERY, result_type=HostProgress)
        progress: HostProgress = await self._connection.answered(query)
        return progress

    async def follow(self) -> AsyncIterator[HostProgress]:
        """Each change of its progress, until it ends; it outlives restarts of workers and of Temporal."""
        shown = None
        while True:
            closed = False
            with suppress(TemporalError):
                try:
                    # Described first: what is closed by now has its last word in the query after it.
                    status = (await self._handle.describe()).status
                    progress = await self._handle.query(QUERY, result_type=HostProgress, rpc_timeout=QUERY_TIMEOUT)
                except RPCError as error:
                    if not is_transient(error):
                        with typed(self._connection.address):
                            raise
                else:
                    closed = status is not WorkflowExecutionStatus.RUNNING
                    if progress != shown:
                        shown = progress
                        yield progress
            if closed:
                return
            await asyncio.sleep(TICK_S)

    async def cancel(self) -> None:
        """Ask it to begin nothing more, and its operations under way to undo what they did.

        Raises:
            InvalidState: it has ended.
        """
        with typed(self._connection.address):
            status = (await self._handle.describe()).status
            if status is not WorkflowExecutionStatus.RUNNING:
                raise InvalidState(
                    f"of host {self.host} nothing runs that could be cancelled: the last one has ended",
                    field="host",
                    value=self.host,
                    remedy="see how it ended: the same command with --status",
                )
            await self._handle.cancel()


class HostMoves:
    """The part of `client.hosts` that has all of a host's servers moved."""

    _connection: Connection

    async def drain(
        self,
        host: str,
        *,
        parallel: int | None = None,
        skip: bool = False,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> HostWork[DrainResult]:
        """Disable a host, and move all of its servers to others. One that runs already is joined.

        Args:
            parallel: how many at a time; None is the control worker's setting.
            skip: go on with the others when a server cannot be moved.
            reason: why the host is disabled.
        """
        host_id = await self._host_id(host)
        request = DrainRequest(
            host_id=host_id, request_id=request_id or str(uuid4()), parallel=parallel, skip=skip, reason=reason
        )
        return await self._ask(DRAIN_HOST, request, drain_workflow_id(host_id), f"drain host {host}", DrainResult)

    async def evacuate(
        self, host: str, *, parallel: int | None = None, force: bool = False, request_id: str | None = None
    ) -> HostWork[HostFailureResult]:
        """Have all servers of a host that is off built elsewhere. One that runs already is joined.

        That takes all servers from then on, also where the watch began it for some, and `force` counts where the host
        is not fenced yet; `parallel` is as it was.

        Args:
            parallel: how many at a time; None is the control worker's setting.
            force: you have seen to it that the host is off. Else the control worker's fence command does.
        """
        host_id = await self._host_id(host)
        request = HostFailureRequest(
            host_id=host_id, request_id=request_id or str(uuid4()), parallel=parallel, force=force
        )
        workflow_id = host_failure_workflow_id(host_id)
        return await self._ask(HOST_FAILURE, request, workflow_id, f"evacuate host {host}", HostFailureResult)

    async def draining(self, host: str) -> HostWork[DrainResult]:
        """The host's drain that runs, or else the last that did.

        Raises:
            NotFound: Temporal remembers none.
        """
        host_id = await self._host_id(host)
        return await self._latest("drain", host, host_id, drain_workflow_id(host_id), DrainResult)

    async def evacuation(self, host: str) -> HostWork[HostFailureResult]:
        """The host's evacuation that runs, or else the last that did; also one that the watch began.

        Raises:
            NotFound: Temporal remembers none.
        """
        host_id = await self._host_id(host)
        return await self._latest("evacuation", host, host_id, host_failure_workflow_id(host_id), HostFailureResult)

    async def _host_id(self, host: str) -> str:
        return (await self._connection.call(calls.SHOW_HOST, Ref(ref=host))).id

    async def _ask(
        self,
        workflow: str,
        request: DrainRequest | HostFailureRequest,
        workflow_id: str,
        summary: str,
        kind: type[Outcome],
    ) -> HostWork[Outcome]:
        for left in reversed(range(TRIES)):
            try:
                accepted = await self._begin(workflow, request, workflow_id, summary)
                return HostWork(self._connection, workflow_id, accepted, kind)
            except Exception as error:
                if not left or not met_a_closing_run(error.__cause__):
                    raise
        raise AssertionError("unreachable")

    async def _begin(
        self, workflow: str, request: DrainRequest | HostFailureRequest, workflow_id: str, summary: str
    ) -> HostWorkAccepted:
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            workflow,
            request,
            id=workflow_id,
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=summary,
        )
        started = asyncio.ensure_future(start.workflow_handle())
        try:
            accepted: HostWorkAccepted = await self._connection.answered(
                self._connection.temporal.execute_update_with_start_workflow(
                    UPDATE,
                    _call(request),
                    result_type=HostWorkAccepted,
                    start_workflow_operation=start,
                ),
                CONTROL_QUEUE,
                TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            )
        finally:
            # The start's own failure is the update's, too. If nobody asked for it, asyncio would tell everybody.
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
        return accepted

    async def _latest(
        self, what: str, host: str, host_id: str, workflow_id: str, kind: type[Outcome]
    ) -> HostWork[Outcome]:
        with typed(self._connection.address):
            try:
                description = await self._connection.temporal.get_workflow_handle(workflow_id).describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                raise NotFound(
                    f"Temporal remembers no {what} of host {host}",
                    field="host",
                    value=host,
                    remedy=f"begin one: hostler host {'drain' if what == 'drain' else 'evacuate'} {host}",
                ) from error
        accepted = HostWorkAccepted(host_id=host_id, host=host, run_id=description.run_id, joined=True)
        return HostWork(self._connection, workflow_id, accepted, kind)


def _call(request: DrainRequest | HostFailureRequest) -> HostWorkCall:
    """What is asked for where the work runs already."""
    if isinstance(request, DrainRequest):
        return HostWorkCall(request_id=request.request_id)
    return HostWorkCall(request_id=request.request_id, everything=not request.automatic, force=request.force)
