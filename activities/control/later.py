"""Asks for operations whose time has come, by the same door as everybody."""

import asyncio

from temporalio import activity
from temporalio.client import Client as TemporalClient

from activities.interfaces import later as interface
from activities.interfaces.later import LaterCall
from hostler.client.connection import Connection
from hostler.client.operation import begin
from hostler.contract.errors import InvalidState, ServerBusy
from hostler.contract.servers import (
    ConfirmResizeRequest,
    MigrationStatus,
    OperationName,
    OperationRequest,
    ShelveOffloadRequest,
)
from hostler.contract.states import VmState
from hostler.settings import Settings
from models import Database, Migration, Server

REQUESTS: dict[OperationName, type[OperationRequest]] = {
    OperationName.CONFIRM_RESIZE: ConfirmResizeRequest,
    OperationName.SHELVE_OFFLOAD: ShelveOffloadRequest,
}


class Asking(interface.Asking):
    """Starts workflows; the project is the server's own."""

    def __init__(self, database: Database, temporal: TemporalClient, settings: Settings) -> None:
        self._database = database
        self._temporal = temporal
        self._settings = settings

    @activity.defn(name="ask_for_operation")
    async def ask_for_operation(self, call: LaterCall) -> None:
        await asyncio.to_thread(self._check, call)
        connection = Connection(self._temporal, self._settings, call.project)
        request = REQUESTS[call.operation](server_id=call.server_id, request_id=call.request_id, project=call.project)
        summary = f"{call.operation} {call.server_id}, by itself"
        await begin(connection, call.operation, request, summary=summary, server_name=None)

    def _check(self, call: LaterCall) -> None:
        """See that the server is still in the state that it was for.

        Raises:
            ServerBusy: an operation has it; it may be the one that asked for this.
            InvalidState: it is not.
        """
        with self._database.read() as session:
            server = session.get(Server, call.server_id)
            if server is not None and server.operation_id is not None:
                raise ServerBusy(f"server {server.name} is held by run {server.operation_id}")
            if call.operation is OperationName.CONFIRM_RESIZE:
                migration = session.get(Migration, call.subject)
                waits = server is not None and server.vm_state is VmState.RESIZED  # no revert of it was cut short
                wanted = waits and migration is not None and migration.status is MigrationStatus.FINISHED
            else:
                row = session.get(Server, call.server_id)
                wanted = row is not None and row.shelved_image_id == call.subject and row.host_id is not None
        if not wanted:
            raise InvalidState(f"{call.operation} of server {call.server_id} is no longer wanted")
