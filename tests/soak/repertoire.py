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
from hostler.contract.host_work import DRAIN_HOST, HOST_FAILURE, WATCH_HOSTS
from hostler.contract.servers import NEVER, OnFailure, OperationName
from hostler.contract.states import VmState
from tests.cloud import DEMO
from workers.control import WORKFLOWS
from workflows.later import LATER
from workflows.operation import Operation as OperationWorkflow

ACTIVE, STOPPED, RESIZED = VmState.ACTIVE, VmState.STOPPED, VmState.RESIZED
SHELVED, OFFLOADED = VmState.SHELVED, VmState.SHELVED_OFFLOADED
IDLE = frozenset({ACTIVE, STOPPED})
HOLD = OnFailure.HOLD
LARGER = "small"
"""The flavor that servers are resized to."""
Ask = Callable[[Client, str, str], Awaitable[Operation]]
"""Asks for the operation on the server of this UUID, with this request ID. It holds rather than fail."""


@dataclass(frozen=True)
class Action:
    """An operation on a server that exists: from which states, and to which.

    `afterwards` None is the state before, or before the move that is confirmed or reverted.
    """

    operation: OperationName
    allowed: frozenset[VmState]
    afterwards: VmState | None
    ask: Ask

    @property
    def moves(self) -> bool:
        """Whether the server must then be confirmed or reverted."""
        return self.afterwards is RESIZED


ACTIONS: tuple[Action, ...] = (
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
ACTIONS += (
    Action(
        OperationName.SNAPSHOT,
        IDLE,
        None,
        lambda client, server, request: client.servers.snapshot(
            server, f"of {server[:8]}", request_id=request, on_failure=HOLD
        ),
    ),
    Action(
        OperationName.BACKUP,
        IDLE,
        None,
        lambda client, server, request: client.servers.backup(
            server, f"of {server[:8]}", backup_type="daily", rotation=1, request_id=request, on_failure=HOLD
        ),
    ),
    Action(
        OperationName.REBUILD,
        IDLE,
        None,
        lambda client, server, request: client.servers.rebuild(server, image=DEMO, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.SHELVE,
        IDLE,
        OFFLOADED,
        lambda client, server, request: client.servers.shelve(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.SHELVE,
        IDLE,
        SHELVED,
        lambda client, server, request: client.servers.shelve(
            server, offload_after=NEVER, request_id=request, on_failure=HOLD
        ),
    ),
    Action(
        OperationName.SHELVE_OFFLOAD,
        frozenset({SHELVED}),
        OFFLOADED,
        lambda client, server, request: client.servers.shelve_offload(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.UNSHELVE,
        frozenset({SHELVED, OFFLOADED}),
        ACTIVE,
        lambda client, server, request: client.servers.unshelve(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.RESIZE,
        IDLE,
        RESIZED,
        lambda client, server, request: client.servers.resize(server, LARGER, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.MIGRATE,
        IDLE,
        RESIZED,
        lambda client, server, request: client.servers.migrate(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.LIVE_MIGRATE,
        frozenset({ACTIVE}),
        ACTIVE,
        lambda client, server, request: client.servers.live_migrate(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.CONFIRM_RESIZE,
        frozenset({RESIZED}),
        None,
        lambda client, server, request: client.servers.confirm_resize(server, request_id=request, on_failure=HOLD),
    ),
    Action(
        OperationName.REVERT_RESIZE,
        frozenset({RESIZED}),
        None,
        lambda client, server, request: client.servers.revert_resize(server, request_id=request, on_failure=HOLD),
    ),
)
# Each tenant's life begins with a boot and ends with a delete.
ELSEWHERE = {OperationName.BOOT.value, OperationName.DELETE.value, CREATE_IMAGE, CREATE_VOLUME, DELETE_VOLUME}
# A host must be down for long, or out of service, which here none is.
NOT_HERE = {OperationName.EVACUATE.value, HOST_FAILURE, WATCH_HOSTS, DRAIN_HOST}
# Hosts register when they are started again, and the audit has its schedule.
BY_ITSELF = {REGISTER_HOST, AUDIT, LATER}


def choose(rng: random.Random, state: VmState, *, larger: bool) -> Action:
    """Something to do with a server in this state; one that is `larger` already is not resized."""
    fitting = [action for action in ACTIONS if state in action.allowed]
    return rng.choice([one for one in fitting if not (larger and one.operation is OperationName.RESIZE)])


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
    return workflow_types() - {action.operation.value for action in ACTIONS} - ELSEWHERE - NOT_HERE - BY_ITSELF
