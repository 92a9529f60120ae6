"""The shared end of shelve and shelve-offload: the server gives its host up.

| step | where | undo |
|---|---|---|
| destroy_guest, unbind_ports, drop_claim | the server's host; owed when it is silent | - |
| withdraw_volume | each volume's host; owed when it is silent | - |
"""

from typing import Any

from activities.interfaces.guests import Claims, Guests
from activities.interfaces.ports import HostPorts, PortIds
from activities.interfaces.servers import ServerRef, Target
from workflows.block_devices import disconnect
from workflows.operation import Operation
from workflows.steps import StepDefinition

DESTROY = StepDefinition[ServerRef, None](Guests.destroy_guest)
UNBIND_PORTS = StepDefinition[PortIds, None](HostPorts.unbind_ports)
DROP_CLAIM = StepDefinition[ServerRef, None](Claims.drop_claim)
LEAVING = (DESTROY.name, UNBIND_PORTS.name, DROP_CLAIM.name)


async def leave_host(operation: Operation[Any], target: Target) -> None:
    """Remove from the host all but what the server keeps: its identity, addresses and volumes."""
    ref, host = ServerRef(server_id=target.server_id, run_id=operation.run_id), target.hosts[0]
    await operation.ensure(DESTROY, ref, on=host)
    ports = PortIds(server_id=target.server_id, port_ids=target.port_ids)
    await operation.ensure(UNBIND_PORTS, ports, on=host)
    await operation.ensure(DROP_CLAIM, ref, on=host)
    kept = [volume.model_copy(update={"discard": False}) for volume in target.volumes]
    await disconnect(operation, kept)
