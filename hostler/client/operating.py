"""How every operation on a server that is there is asked for."""

from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from hostler.client.connection import Connection
from hostler.client.identify import identify
from hostler.client.operation import Operation, begin
from hostler.contract.servers import OperationName, OperationRequest, SnapshotRequest
from hostler.contract.validation import check_operation


class Operating:
    """What the parts of `client.servers` share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._project = connection.project

    async def _operate(
        self,
        operation: OperationName,
        kind: type[OperationRequest],
        server: str,
        request_id: str | None,
        *,
        detail: str = "",
        **options: Any,
    ) -> Operation:
        """Ask for an operation. `detail` is what the Temporal UI tells of it beside the server."""
        server_id, name = await identify(self._connection, server)
        request_id = request_id or str(uuid4())
        if issubclass(kind, SnapshotRequest) and options["image_id"] is None:
            # A repeated call is the same request, its image's UUID included.
            options["image_id"] = str(uuid5(NAMESPACE_URL, f"{server_id}/{request_id}/image"))
        request = kind(server_id=server_id, request_id=request_id, project=self._project, **options)
        check_operation(request)
        summary = f"{operation} {name or server_id}{detail}"
        return await begin(self._connection, operation, request, summary=summary, server_name=name)
