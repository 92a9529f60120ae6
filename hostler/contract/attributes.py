"""How Temporal's index finds an operation, whoever starts it."""

from temporalio.common import SearchAttributePair, TypedSearchAttributes

from hostler.contract.names import OPERATION, PROJECT, SERVER_ID, SERVER_NAME
from hostler.contract.servers import OperationName, OperationRequest


def operation_attributes(
    operation: OperationName, request: OperationRequest, server_name: str | None
) -> TypedSearchAttributes:
    """The search attributes with which an operation starts."""
    attributes = [
        SearchAttributePair(SERVER_ID, request.server_id),
        SearchAttributePair(PROJECT, request.project),
        SearchAttributePair(OPERATION, operation.value),
    ]
    if server_name is not None:
        attributes.append(SearchAttributePair(SERVER_NAME, server_name))
    return TypedSearchAttributes(attributes)
