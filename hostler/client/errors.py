"""Temporal's errors as Hostler's: every failure of a call, an update or an operation becomes a `HostlerError`."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.client import ActivityFailureError, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    TemporalError,
    TerminatedError,
    TimeoutError,
)
from temporalio.service import RPCError, RPCStatusCode

from hostler.contract.errors import (
    Cancelled,
    HostlerError,
    InvalidRequest,
    NotFound,
    OperationFailed,
    Unavailable,
    from_application_error,
)

# What a Temporal server that restarts, or a network that blinks, answers.
TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
}
_FAILURES = (ActivityFailureError, WorkflowFailureError, WorkflowUpdateFailedError)
START_TEMPORAL = "start Temporal (for a cloud on this machine: hostler dev), or give another --temporal ADDRESS"


def is_transient(error: BaseException) -> bool:
    """Whether the same RPC may succeed a moment later."""
    return isinstance(error, RPCError) and error.status in TRANSIENT


@contextmanager
def typed(address: str) -> Iterator[None]:
    """Turn what Temporal at `address` raises inside into a `HostlerError`."""
    try:
        yield
    except _FAILURES as error:
        raise from_failure(error.cause) from error
    except RPCError as error:
        raise from_rpc_error(error, address) from error
    except TemporalError as error:
        raise Unavailable(f"Temporal at {address} does not answer: {error}", remedy=START_TEMPORAL) from error


def met_a_closing_run(error: BaseException | None) -> bool:
    """Whether an update came to nothing because its run was about to end."""
    if isinstance(error, WorkflowUpdateFailedError):
        failure = error.cause
        return isinstance(failure, ApplicationError) and failure.type == "AcceptedUpdateCompletedWorkflow"
    return isinstance(error, RPCError) and error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.ABORTED)


def from_failure(failure: BaseException) -> HostlerError:
    """The typed error in a failure's chain of causes, or else what comes closest to its root."""
    chain = list(_chain(failure))
    for error in chain:
        if isinstance(error, ApplicationError) and (known := from_application_error(error)):
            return known
    root = chain[-1]
    if any(isinstance(error, CancelledError) for error in chain):
        return Cancelled("cancelled; what had been done was undone")
    if isinstance(root, TerminatedError):
        return OperationFailed(
            f"terminated in Temporal: {root.message}",
            remedy="nothing was undone: look at what is left with `hostler server show`, then delete the server",
        )
    if isinstance(root, TimeoutError):
        return Unavailable(f"no answer in time: {root.message}")
    if isinstance(root, ApplicationError) and root.type:
        return OperationFailed(f"{root.type}: {root.message}")
    return OperationFailed(str(root))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def from_rpc_error(error: RPCError, address: str) -> HostlerError:
    """What the Temporal server's own refusal means for the caller."""
    match error.status:
        case RPCStatusCode.NOT_FOUND if "namespace" not in error.message.lower():
            return NotFound(error.message)
        case RPCStatusCode.NOT_FOUND:
            remedy = "make the namespace, or set temporal.namespace to one that exists"
        case RPCStatusCode.INVALID_ARGUMENT if "search attribute" in error.message.lower():
            remedy = "start a control worker: it registers the search attributes (hostler worker control)"
        case RPCStatusCode.INVALID_ARGUMENT:
            return InvalidRequest(error.message)
        case RPCStatusCode.UNIMPLEMENTED:
            remedy = "this Temporal server is too old: Hostler needs standalone activities"
        case RPCStatusCode.PERMISSION_DENIED | RPCStatusCode.UNAUTHENTICATED:
            remedy = "check the credentials for Temporal"
        case _:
            remedy = START_TEMPORAL
    return Unavailable(f"Temporal at {address}: {error.message}", remedy=remedy)
