"""The steps by which a guest comes to run on a host, shared by every operation that builds one.

| step | where | leaves behind | undo |
|---|---|---|---|
| claim_resources | host | claim | drop_claim |
| bind_ports | host | bridge, DHCP entry, NAT | unbind_ports |
| spawn | host | files, domain (paused), taps | destroy_guest |
| resume_guest | host | - | destroy_guest, of spawn |
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from activities.interfaces.block_devices import VolumeRef
from activities.interfaces.guests import Claims, Guests
from activities.interfaces.plans import GuestPlan
from activities.interfaces.ports import BindPorts, HostPorts, PortIds
from activities.interfaces.scheduling import Placement, Schedule, Scheduling, Story
from activities.interfaces.servers import HostRef, ServerRef, Servers, SetTaskState
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding, VolumeConnection
from hostler.contract.states import PowerState
from workflows.block_devices import EXPORT, blaming, connected, keeper
from workflows.operation import Operation
from workflows.steps import Saga, StepDefinition

SCHEDULE = StepDefinition[Schedule, Placement](Scheduling.schedule, undo=Scheduling.release_allocation)
EXPLAIN = StepDefinition[Schedule, Story](Scheduling.explain)
CLAIM = StepDefinition[ClaimSpec, None](Claims.claim_resources, undo=Claims.drop_claim)
BIND_PORTS = StepDefinition[BindPorts, None](HostPorts.bind_ports, undo=HostPorts.unbind_ports)
SET_TASK_STATE = StepDefinition[SetTaskState, None](Servers.set_task_state)
SPAWN = StepDefinition[GuestSpec, None](
    Guests.spawn, undo=Guests.destroy_guest, timeout=timedelta(minutes=5), heartbeat=timedelta(seconds=30)
)
RESUME = StepDefinition[ServerRef, PowerState](Guests.resume_guest)


async def bind(operation: Operation[Any], ports: Sequence[PortBinding], host: HostRef, saga: Saga) -> None:
    """Make the ports ready on a host, if there are any."""
    if ports:
        server_id = ports[0].server_id
        bound = PortIds(server_id=server_id, port_ids=[port.port_id for port in ports])
        await operation.step(
            BIND_PORTS, BindPorts(server_id=server_id, ports=list(ports)), on=host, saga=saga, undo=bound
        )


async def connections(operation: Operation[Any], plan: GuestPlan) -> dict[str, VolumeConnection]:
    """How to reach the volumes that the server has: they are exported already, or still."""
    found = {}
    for work in plan.volumes:
        with blaming(work):
            found[work.volume_id] = await operation.step(EXPORT, VolumeRef(volume_id=work.volume_id), on=keeper(work))
    return found


async def connected_guest(operation: Operation[Any], plan: GuestPlan) -> GuestSpec:
    """The guest, with its volumes as it reaches them."""
    reached = await connections(operation, plan)
    return plan.guest.model_copy(update={"disks": connected(plan.guest.disks, reached)})


def claim_of(plan: GuestPlan) -> ClaimSpec:
    """The resources that the guest needs."""
    guest = plan.guest
    return ClaimSpec(server_id=guest.server_id, vcpus=guest.vcpus, ram_mib=guest.ram_mib, disk_gib=plan.disk_gib)


def schedule_of(
    plan: GuestPlan, run_id: str, *, zone: str | None, host: str | None, alternates: list[str], excluded: list[str]
) -> Schedule:
    """What the scheduler is asked for."""
    guest = plan.guest
    return Schedule(
        server_id=guest.server_id,
        run_id=run_id,
        vcpus=guest.vcpus,
        ram_mib=guest.ram_mib,
        disk_gib=plan.disk_gib,
        zone=zone,
        host=host,
        architecture=plan.architecture,
        hypervisor_type=plan.hypervisor_type,
        alternates=alternates,
        excluded=excluded,
    )
