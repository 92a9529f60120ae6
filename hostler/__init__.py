"""Hostler: a compute service for clouds in which every virtual machine operation is a durable workflow.

import asyncio
from hostler import Client

async def main() -> None:
    async with await Client.connect() as client:
        operation = await client.servers.boot("web-1", flavor="m1.tiny", image="demo", networks=["private"])
        print(await operation.result())

asyncio.run(main())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostler.client import Client, Operation
    from hostler.contract.errors import (
        BuildFailed,
        Cancelled,
        Conflict,
        DecryptionFailed,
        HostlerError,
        ImageRejected,
        InvalidRequest,
        InvalidState,
        NotFound,
        NoValidHost,
        OperationFailed,
        Preempted,
        QuotaExceeded,
        RescheduleError,
        ServerBusy,
        Unavailable,
    )
    from hostler.contract.resources import Flavor, Host, Image, KeyPair, Network, Quota, Volume
    from hostler.contract.servers import (
        Address,
        BlockDeviceMapping,
        Decided,
        Fault,
        Hold,
        Migration,
        MigrationKind,
        MigrationStatus,
        NetworkRequest,
        OnFailure,
        OperationName,
        Progress,
        RunningOperation,
        Server,
        ServerEvent,
        ServerMigration,
        Step,
        StepStatus,
    )
    from hostler.contract.states import PowerState, TaskState, VmState
    from hostler.settings import Settings

__all__ = [
    "Address",
    "BlockDeviceMapping",
    "BuildFailed",
    "Cancelled",
    "Client",
    "Conflict",
    "Decided",
    "DecryptionFailed",
    "Fault",
    "Flavor",
    "Hold",
    "Host",
    "HostlerError",
    "Image",
    "ImageRejected",
    "InvalidRequest",
    "InvalidState",
    "KeyPair",
    "Migration",
    "MigrationKind",
    "MigrationStatus",
    "Network",
    "NetworkRequest",
    "NoValidHost",
    "NotFound",
    "OnFailure",
    "Operation",
    "OperationFailed",
    "OperationName",
    "PowerState",
    "Preempted",
    "Progress",
    "Quota",
    "QuotaExceeded",
    "RescheduleError",
    "RunningOperation",
    "Server",
    "ServerBusy",
    "ServerEvent",
    "ServerMigration",
    "Settings",
    "Step",
    "StepStatus",
    "TaskState",
    "Unavailable",
    "VmState",
    "Volume",
]

# Looked through when a name is first asked for: Temporal's library takes a third of a second to import, too long for
# `hostler --help`.
_MODULES = (
    "hostler.contract.states",
    "hostler.contract.errors",
    "hostler.contract.resources",
    "hostler.contract.servers",
    "hostler.settings",
    "hostler.client",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
