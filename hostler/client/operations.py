"""`client.operations`: the operations that run now, and an operator's decisions about those that hold."""

import asyncio
import getpass
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from pydantic import BaseModel
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError, RPCStatusCode

from hostler.client.connection import Connection
from hostler.client.errors import met_a_closing_run, typed
from hostler.client.identify import identify
from hostler.client.index import running_filter, running_operation, server_of
from hostler.client.operation import Operation
from hostler.client.progress import QUERY, QUERY_TIMEOUT
from hostler.contract.checks import check_number
from hostler.contract.errors import InvalidState, NotFound
from hostler.contract.names import PROJECT, server_workflow_id
from hostler.contract.servers import (
    Accepted,
    Choice,
    Decided,
    Decision,
    ForceComplete,
    OperationName,
    Progress,
    RunningOperation,
)
from hostler.contract.validation import check_decision, check_signature

UPDATE, FORCE_COMPLETE = "decide", "force_complete"
LIMIT = 1000
QUERIES_AT_ONCE = 20


class Operations:
    """Operations that run. A server is named by UUID or, where only one has it, by name.

    A decision raises `InvalidState` when no operation runs on the server, when it does not hold or somebody decided
    already; `InvalidRequest` when the decision makes no sense; `NotFound` for a server or host that is not there.
    `note` is why, for those who read the server's events later; `by` is who decides, None the user and machine that
    this runs as.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(
        self,
        *,
        held: bool | None = None,
        overdue: bool | None = None,
        all_projects: bool = False,
        limit: int = LIMIT,
    ) -> Sequence[RunningOperation]:
        """The project's running operations, or everybody's, the latest first; at most `limit` of them.

        Temporal's index is read, which is some moments behind. Those that hold are asked for the reason; it is None
        where no control worker answers.

        Args:
            held: only those that hold (False: that do not).
            overdue: only those that have been running for too long (False: that have not).
        """
        check_number("limit", limit, minimum=1)
        wanted = running_filter(None if all_projects else self._connection.project, held, overdue)
        turns = asyncio.Semaphore(QUERIES_AT_ONCE)
        with typed(self._connection.address):
            listed = self._connection.temporal.list_workflows(wanted, limit=limit)
            return await asyncio.gather(*[self._explained(execution, turns) async for execution in listed])

    async def retry(self, server: str, *, note: str = "", by: str | None = None) -> Decided:
        """Let a held operation try the step that failed once more."""
        return await self._decide(server, Decision(choice=Choice.RETRY, by=by or whoami(), note=note))

    async def move(self, server: str, *, host: str | None = None, note: str = "", by: str | None = None) -> Decided:
        """Let a held operation leave the host at which it failed, for `host` or for the scheduler's choice."""
        return await self._decide(server, Decision(choice=Choice.MOVE, by=by or whoami(), note=note, host=host))

    async def give_up(self, server: str, *, note: str = "", by: str | None = None) -> Decided:
        """Let a held operation undo what it has done, and fail."""
        return await self._decide(server, Decision(choice=Choice.GIVE_UP, by=by or whoami(), note=note))

    async def cancel(self, server: str, *, note: str = "", by: str | None = None) -> Operation:
        """Ask the operation that runs on a server to stop and undo, whether it holds or not.

        Returns when Temporal has taken the request; how the operation ends its `result` tells.
        """
        who = by or whoami()
        check_signature(who, note)
        description = await self._described(server)
        with typed(self._connection.address):
            await self._handle(description).cancel(reason=f"by {who}" + (f": {note}" if note else ""))
        accepted = Accepted(
            operation=OperationName(description.workflow_type),
            server_id=server_of(description),
            run_id=description.run_id,
        )
        return Operation(self._connection, accepted)

    async def force_complete(self, server: str, *, by: str | None = None) -> None:
        """Have the live migration of a server end soon, at the price of its guest's standing still until it is across.

        Raises:
            InvalidState: none is under way, or its guest is not on its way yet.
        """
        who = by or whoami()
        check_signature(who, "")
        description = await self._described(server)
        if description.workflow_type != OperationName.LIVE_MIGRATE:
            raise InvalidState(
                f'server {server} is busy running "{description.workflow_type}", which is no live migration',
                field="server",
                value=server,
                remedy=f"see how far it is: hostler server follow {server}",
            )
        await self._update(server, description, FORCE_COMPLETE, ForceComplete(by=who), None)

    async def _decide(self, server: str, decision: Decision) -> Decided:
        check_decision(decision)
        decided: Decided = await self._update(server, await self._described(server), UPDATE, decision, Decided)
        return decided

    async def _update(
        self, server: str, run: WorkflowExecution, update: str, word: BaseModel, answer: type[BaseModel] | None
    ) -> Any:
        """Send it to this very run: it is about this operation, not about one that comes after it."""
        try:
            return await self._connection.answered(
                self._handle(run).execute_update(update, word, id=str(uuid4()), result_type=answer)
            )
        except Exception as error:
            if not met_a_closing_run(error.__cause__):
                raise
            raise _nothing_runs(server) from error

    async def _described(self, server: str) -> WorkflowExecutionDescription:
        """The run of the server's operation, which must be running and the project's."""
        server_id, _ = await identify(self._connection, server)
        with typed(self._connection.address):
            try:
                description = await self._connection.temporal.get_workflow_handle(
                    server_workflow_id(server_id)
                ).describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                raise _nothing_runs(server) from error
        if description.typed_search_attributes.get(PROJECT) not in (None, self._connection.project):
            raise NotFound(
                f"no server {server} in project {self._connection.project}",
                field="server",
                value=server,
                remedy="see: hostler server list; --project names another project",
            )
        if description.status is not WorkflowExecutionStatus.RUNNING:
            raise _nothing_runs(server)
        return description

    def _handle(self, run: WorkflowExecution) -> WorkflowHandle[Any, Any]:
        return self._connection.temporal.get_workflow_handle(run.id, run_id=run.run_id)

    async def _explained(self, execution: WorkflowExecution, turns: asyncio.Semaphore) -> RunningOperation:
        """What the index says, and of one that holds why it does."""
        operation = running_operation(execution)
        if operation.held:
            async with turns:
                with suppress(TemporalError):
                    progress = await self._handle(execution).query(
                        QUERY, result_type=Progress, rpc_timeout=QUERY_TIMEOUT
                    )
                    return operation.model_copy(update={"hold": progress.hold})
        return operation


def _nothing_runs(server: str) -> InvalidState:
    return InvalidState(
        f"no operation runs on server {server}",
        field="server",
        value=server,
        remedy=f"see how the last one ended: hostler server events {server}; what runs: hostler operation list",
    )


def whoami() -> str:
    """The user and machine that this process runs as."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name here, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
