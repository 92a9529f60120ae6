"""An operation on a server: how it is begun, followed and awaited."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import (
    WithStartWorkflowOperation,
    WorkflowContinuedAsNewError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from hostler.client.connection import Connection
from hostler.client.errors import is_transient, met_a_closing_run, typed
from hostler.client.progress import follow_run
from hostler.contract.attributes import operation_attributes
from hostler.contract.calls import SHOW_SERVER, Ref
from hostler.contract.errors import HostlerError, NotFound, Preempted, from_detail
from hostler.contract.fingerprint import fingerprint
from hostler.contract.names import CONTROL_QUEUE, server_workflow_id
from hostler.contract.servers import (
    Accepted,
    OperationCall,
    OperationName,
    OperationRequest,
    Progress,
    Server,
    SnapshotRequest,
)

UPDATE = "request"
RETRY_S = (0.5, 10.0)
# A run that ends between our two halves, start and update, takes no update; the next try starts a new run.
TRIES = 5


class Operation:
    """An accepted operation. It goes on by itself, whether somebody waits for it or not.

    Attributes:
        operation: which it is.
        server_id: the server's UUID.
        run_id: the Temporal run that took it.
        preempts: the operation that it cuts short first (only a delete does that).
        image_id: the UUID of the image that `snapshot` or `backup` makes, where it was they that returned this.
    """

    def __init__(self, connection: Connection, accepted: Accepted, image_id: str | None = None) -> None:
        self.operation = accepted.operation
        self.server_id = accepted.server_id
        self.run_id = accepted.run_id
        self.preempts = accepted.preempts
        self.image_id = image_id
        self._connection = connection

    def __repr__(self) -> str:
        return f"<Operation {self.operation} of server {self.server_id}, run {self.run_id}>"

    async def result(self, timeout: timedelta | None = None) -> Server:
        """Wait for the end, and return the server as it is then.

        Raises:
            Preempted: a delete took the server over.
            Cancelled: somebody cancelled the operation.
            BuildFailed, NoValidHost, OperationFailed...: it gave up, and undid what it had done.
            TimeoutError: it still runs after `timeout`, and goes on.
        """
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            run: str | None = self.run_id
            while run is not None:
                outcome = await self._outcome(run)
                if isinstance(outcome, Server):
                    return outcome
                run = await self._successor(outcome)
        raise Preempted(
            f"a delete took server {self.server_id} over while its {self.operation} ran",
            remedy="nothing is left of the server; create it anew if it is still wanted",
        )

    async def follow(self) -> AsyncIterator[Progress]:
        """Each change of its progress, until it ends: first of what it pre-empts, if it does.

        It survives restarts of the control worker and of Temporal, and does not tell how the operation ended:
        `result` does.

        Raises:
            NotFound: Temporal no longer knows the operation.
            Unavailable: Temporal refuses.
        """
        run: str | None = self.run_id
        while run is not None:
            unknown = Progress(operation=self.operation, server_id=self.server_id, run_id=run)
            with typed(self._connection.address):
                async for progress in follow_run(self._handle(run), unknown):
                    yield progress
            run = await self._next_of(run)

    async def cancel(self) -> None:
        """Ask it to stop and to undo what it has done; `result` then raises `Cancelled`."""
        with typed(self._connection.address):
            await self._handle(self.run_id).cancel()

    def _handle(self, run: str) -> WorkflowHandle[Any, Server]:
        return self._connection.temporal.get_workflow_handle(
            server_workflow_id(self.server_id), run_id=run, result_type=Server
        )

    async def _outcome(self, run: str) -> Server | str:
        """What a run ended with: the server, or the run that it goes on in."""
        delay = RETRY_S[0]
        with typed(self._connection.address):
            while True:
                try:
                    return await self._handle(run).result(follow_runs=False)
                except WorkflowContinuedAsNewError as error:
                    return error.new_execution_run_id
                except RPCError as error:
                    if error.status is RPCStatusCode.NOT_FOUND:
                        return await self._remembered()
                    if not is_transient(error):
                        raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_S[1])

    async def _remembered(self) -> Server:
        """The outcome as the database has it, for a run older than Temporal's retention."""
        project = self._connection.project
        server = await self._connection.call(SHOW_SERVER, Ref(ref=self.server_id, project=project))
        if server.fault is not None:
            raise from_detail(server.fault.error)
        return server

    async def _successor(self, run: str) -> str | None:
        """`run` if it carries this operation on, None if it is another's that took the server over."""
        with typed(self._connection.address):
            description = await self._handle(run).describe()
        return run if description.workflow_type == self.operation else None

    async def _next_of(self, run: str) -> str | None:
        try:
            outcome = await self._outcome(run)
        except HostlerError:
            return None
        return None if isinstance(outcome, Server) else await self._successor(outcome)


async def begin(
    connection: Connection,
    operation: OperationName,
    request: OperationRequest,
    *,
    summary: str,
    server_name: str | None,
) -> Operation:
    """Ask for an operation, and return when it is accepted.

    Raises:
        HostlerError: why it is not accepted.
    """
    for _ in range(TRIES - 1):
        try:
            return await _ask(connection, operation, request, summary, server_name)
        except Exception as error:
            if not met_a_closing_run(error.__cause__):
                raise
    return await _ask(connection, operation, request, summary, server_name)


async def _ask(
    connection: Connection,
    operation: OperationName,
    request: OperationRequest,
    summary: str,
    server_name: str | None,
) -> Operation:
    start: WithStartWorkflowOperation[Any, Server] = WithStartWorkflowOperation(
        operation.value,
        request,
        id=server_workflow_id(request.server_id),
        task_queue=CONTROL_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=operation_attributes(operation, request, server_name),
        static_summary=summary,
    )
    started = asyncio.ensure_future(start.workflow_handle())
    try:
        accepted: Accepted = await connection.answered(
            connection.temporal.execute_update_with_start_workflow(
                UPDATE,
                OperationCall(
                    operation=operation,
                    server_id=request.server_id,
                    request_id=request.request_id,
                    project=request.project,
                    fingerprint=fingerprint(request),
                    on_failure=request.on_failure,
                ),
                # Temporal answers an update that it knows from the last run as it did then, also when that was a
                # refusal. A boot is told from others by its workflow; any other operation is the same one if its
                # request ID is.
                id=None if operation is OperationName.BOOT else f"{operation}:{request.request_id}",
                result_type=Accepted,
                start_workflow_operation=start,
            ),
            CONTROL_QUEUE,
            TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            remedy=(
                "start one: hostler worker control. Temporal keeps the request, so the operation may begin then; "
                "the same call with the same request ID joins it"
            ),
        )
    finally:
        # The start's own failure is the update's, too. If nobody asked for it, asyncio would tell everybody.
        started.cancel()
        await asyncio.gather(started, return_exceptions=True)
    return Operation(connection, accepted, request.image_id if isinstance(request, SnapshotRequest) else None)


async def latest(connection: Connection, server_id: str) -> Operation:
    """The operation that runs on a server, or else the last that did.

    Raises:
        NotFound: Temporal remembers none.
    """
    handle = connection.temporal.get_workflow_handle(server_workflow_id(server_id))
    with typed(connection.address):
        try:
            description = await handle.describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise NotFound(
                f"Temporal remembers no operation on server {server_id}",
                field="server",
                value=server_id,
                remedy="`hostler server events` shows what the database remembers",
            ) from error
    operation = OperationName(description.workflow_type)
    return Operation(connection, Accepted(operation=operation, server_id=server_id, run_id=description.run_id))
