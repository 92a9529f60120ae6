"""Takes a server off a host, whatever there is of it; shared by all that do so.

| step | where | undo |
|---|---|---|
| destroy_guest, unbind_ports, drop_claim | the host; owed when it is silent | - |
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from activities.interfaces.guests import Claims, Guests
from activities.interfaces.ports import HostPorts, PortIds
from activities.interfaces.scheduling import Allocation, Scheduling
from activities.interfaces.servers import HostRef, ServerRef
from workflows.operation import Operation
from workflows.steps import StepDefinition

DESTROY = StepDefinition[ServerRef, None](Guests.destroy_guest)
UNBIND_PORTS = StepDefinition[PortIds, None](HostPorts.unbind_ports)
DROP_CLAIM = StepDefinition[ServerRef, None](Claims.drop_claim)
RELEASE_ALLOCATION = StepDefinition[Allocation, None](Scheduling.release_allocation)
DROP_FORMER_GUEST = StepDefinition[ServerRef, None](Guests.drop_former_guest)
DROP_FORMER_CLAIM = StepDefinition[ServerRef, None](Claims.drop_former_claim)


async def remove_from(operation: Operation[Any], host: HostRef, ref: ServerRef, port_ids: Sequence[str]) -> None:
    """The guest first: what it uses goes when it is gone."""
    await operation.ensure(DESTROY, ref, on=host)
    await operation.ensure(UNBIND_PORTS, PortIds(server_id=ref.server_id, port_ids=list(port_ids)), on=host)
    await operation.ensure(DROP_CLAIM, ref, on=host)


async def remove_handed_over(operation: Operation[Any], host: HostRef, ref: ServerRef, port_ids: Sequence[str]) -> None:
    """The ports at the same time: the guest runs elsewhere, and uses none here any more."""
    ports = PortIds(server_id=ref.server_id, port_ids=list(port_ids))

    async def guest() -> None:
        await operation.ensure(DESTROY, ref, on=host)
        await operation.ensure(DROP_CLAIM, ref, on=host)

    await asyncio.gather(guest(), operation.ensure(UNBIND_PORTS, ports, on=host))
