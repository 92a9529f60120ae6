"""The shared end of shelve and shelve-offload: the server gives its host up.

| step | where | undo |
|---|---|---|
| destroy_guest, unbind_ports, drop_claim | the server's host; owed when it is silent | - |
| withdraw_volume | each volume's host; owed when it is silent | - |
"""

from typing import Any

from activities.interfaces.servers import ServerRef, Target
from workflows.block_devices import disconnect
from workflows.operation import Operation
from workflows.removing import DESTROY, DROP_CLAIM, UNBIND_PORTS, remove_from

LEAVING = (DESTROY.name, UNBIND_PORTS.name, DROP_CLAIM.name)


async def leave_host(operation: Operation[Any], target: Target) -> None:
    """Remove from the host all but what the server keeps: its identity, addresses and volumes."""
    ref = ServerRef(server_id=target.server_id, run_id=operation.run_id)
    await remove_from(operation, target.hosts[0], ref, target.port_ids)
    kept = [volume.model_copy(update={"discard": False}) for volume in target.volumes]
    await disconnect(operation, kept)
