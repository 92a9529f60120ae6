"""What a client asked for, as Temporal has it."""

from typing import TypeVar

from temporalio.client import Client as TemporalClient

from hostler.codec import data_converter
from hostler.contract.names import server_workflow_id
from hostler.contract.servers import OperationRequest
from hostler.settings import Settings, load

Request = TypeVar("Request", bound=OperationRequest)


async def sent(
    address: str, namespace: str, server_id: str, kind: type[Request], settings: Settings | None = None
) -> tuple[str, Request]:
    """The name and the request of the last operation on a server."""
    converter = data_converter(settings or load())
    temporal = await TemporalClient.connect(address, namespace=namespace, data_converter=converter)
    handle = temporal.get_workflow_handle(server_workflow_id(server_id))
    async for event in handle.fetch_history_events():
        started = event.workflow_execution_started_event_attributes
        [request] = await converter.decode(started.input.payloads, [kind])
        return started.workflow_type.name, request
    raise AssertionError("a history begins with its start")
