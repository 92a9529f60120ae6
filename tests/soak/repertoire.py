"""Every operation that there is, with what it should come to. One that is missing here stops the soak."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow

from hostler import Client
from hostler.client import Operation
from hostler.contract.audit import AUDIT
from hostler.contract.calls import CREATE_IMAGE, CREATE_VOLUME, DELETE_VOLUME, REGISTER_HOST
from hostler.contract.servers import OnFailure, OperationName
from hostler.contract.states import VmState
from workers.control import WORKFLOWS
from workflows.operation import Operation as OperationWorkflow

ACTIVE, STOPPED = VmState.ACTIVE, VmState.STOPPED
HOLD = OnFailure.HOLD
Ask = Callable[[Client, str, str], Awaitable[Operation]]
"""Asks for the operation on the server of this UUID, with this request ID. It holds rather than fail."""


@dataclass(frozen=True)
class Action:
    """An operation on a server that exists: from which states, and to which."""

    operation: OperationName
    allowed: frozenset[VmState]
    afterwards: VmState
    ask: Ask


ACTIONS = (
    Action(
        OperationName.START,
        frozenset({STOPPED}),
        ACTIVE,
        lambda client, server, request: client.servers.start(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.STOP,
        frozenset({ACTIVE}),
        STOPPED,
        lambda client, server, request: client.servers.stop(
            server, timeout=timedelta(seconds=5), request_id=request, on_failure=HOLD
        ),
    ),
    Action(
        OperationName.REBOOT,
        frozenset({ACTIVE}),
        ACTIVE,
        lambda client, server, request: client.servers.reboot(
            server, timeout=timedelta(seconds=5), request_id=request, on_failure=HOLD
        ),
    ),
    Action(
        OperationName.REBOOT,
        frozenset({ACTIVE, STOPPED}),
        ACTIVE,
        lambda client, server, request: client.servers.reboot(server, hard=True, request_id=request, on_failure=HOLD),
    ),
)
# Each tenant's life begins with a boot and ends with a delete.
ELSEWHERE = {OperationName.BOOT.value, OperationName.DELETE.value, CREATE_IMAGE, CREATE_VOLUME, DELETE_VOLUME}
# Hosts register when they are started again, and the audit has its schedule.
BY_ITSELF = {REGISTER_HOST, AUDIT}


def choose(rng: random.Random, state: VmState) -> Action:
    """Something to do with a server in this state."""
    return rng.choice([action for action in ACTIONS if state in action.allowed])


def workflow_types() -> set[str]:
    """Every workflow that the product has."""
    return set(map(_type, WORKFLOWS))


def server_operations() -> set[OperationName]:
    """Every operation on a server that the product has."""
    return {OperationName(_type(cls)) for cls in WORKFLOWS if issubclass(cls, OperationWorkflow)}


def _type(cls: type) -> str:
    name = workflow._Definition.must_from_class(cls).name
    assert name is not None
    return name


def missing() -> set[str]:
    """Workflows that the soak does not know."""
    return workflow_types() - {action.operation.value for action in ACTIONS} - ELSEWHERE - BY_ITSELF
