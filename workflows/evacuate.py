"""Evacuate: build a server anew, away from its host, which has been declared down.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_evacuation | control: the source owes that the guest is off | row taken, the allocation kept as the former one | settle |
| destroy_guest, unbind_ports, drop_claim; release_allocation | hosts of a move that was cut short; where one owes them it ends here | - | - |
| schedule | control | allocation | release_allocation |
| claim_resources | host | claim | drop_claim |
| fetch_image, export_volume | host, volume hosts | cached image; exports, which are there | none |
| bind_ports | host | bridge, DHCP entry, NAT | unbind_ports |
| spawn | host | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the host | - | - |
| resume_guest, or stop_guest | host | - | destroy_guest, of spawn |
| destroy_guest, unbind_ports, drop_claim, drop_former_guest, drop_former_claim | source, which owes them | - | - : from here on it only goes forward |
| finish_evacuation | control: host, allocation and state, by one change; the source of a move that waited owes the rest | ACTIVE, or SHUTOFF as before | - |

The source is not asked for anything: it owes, also when it has come back meanwhile, and then does so within seconds. A
host that fails is left for the next one: see workflows/placing.py.
"""  # noqa: E501 - a table

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.evacuations import BeginEvacuation, EvacuationPlan, Evacuations, FinishEvacuation
from activities.interfaces.scheduling import Allocation, Schedule
from activities.interfaces.servers import HostRef
from hostler.contract.errors import HostlerError
from hostler.contract.servers import EvacuateRequest, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE
from workflows.building import (
    BIND_PORTS,
    CLAIM,
    RESUME,
    SCHEDULE,
    SPAWN,
    bind,
    claim_of,
    connected_guest,
    schedule_of,
)
from workflows.concurrency import to_the_end
from workflows.placing import PlacedOperation, not_built_twice
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.removing import (
    DESTROY,
    DROP_CLAIM,
    DROP_FORMER_CLAIM,
    DROP_FORMER_GUEST,
    RELEASE_ALLOCATION,
    UNBIND_PORTS,
    remove_from,
)
from workflows.steps import StepDefinition

BEGIN_EVACUATION = StepDefinition[BeginEvacuation, EvacuationPlan](Evacuations.begin_evacuation)
FINISH_EVACUATION = StepDefinition[FinishEvacuation, Server](Evacuations.finish_evacuation)
PLANNED = (
    *(BEGIN_EVACUATION.name, SCHEDULE.name, CLAIM.name, FETCH_IMAGE.name, BIND_PORTS.name, SPAWN.name),
    *(WAIT_VIF_PLUGGED, RESUME.name, DESTROY.name, UNBIND_PORTS.name, DROP_CLAIM.name, DROP_FORMER_GUEST.name),
    *(DROP_FORMER_CLAIM.name, FINISH_EVACUATION.name),
)
CLEARS_WHERE_DOWN = "evacuate-clears-where-down"


@workflow.defn(name=OperationName.EVACUATE.value)
class Evacuate(PlacedOperation[EvacuateRequest]):
    """See the table above."""

    operation, afterwards = OperationName.EVACUATE, VmState.ACTIVE
    may_be_refused_late = True

    @workflow.init
    def __init__(self, request: EvacuateRequest) -> None:
        super().__init__(request, PLANNED)

    @workflow.run
    async def run(self, request: EvacuateRequest) -> Server:
        """Evacuate the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """It is also a way out of an error, as in Nova. Of one that waits `begin_evacuation` decides."""
        return (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)

    async def carry_out(self) -> Server:
        begin = BeginEvacuation(
            **dict(self.begin(self.allowed(), TaskState.REBUILDING)),
            host=self.call.host,
            max_attempts=self.call.max_attempts,
        )
        self.plan = await self.unbroken(BEGIN_EVACUATION, begin)
        self.last_record(BEGIN_EVACUATION.name).note = self.plan.because
        self.source = self.plan.hosts[0]
        self.silent.add(self.source.id)  # by whoever declared it down: nobody need wait for its answer
        self.accept(self.plan.limits, f"evacuate {self.plan.name} from {self.source.name}")
        await self.clear(self.plan.hosts[1:])
        host, power_state = await self.on_some_host(self.build)
        return await to_the_end(self.finish(host, power_state))

    async def clear(self, hosts: Sequence[HostRef]) -> None:
        """Remove what an evacuation that was cut short has left: it may be running."""
        for host in hosts:
            is_down = host.id in self.plan.down and workflow.patched(CLEARS_WHERE_DOWN)
            if is_down:  # so nothing runs there, and it removes that before anything else
                self.silent.add(host.id)
            await to_the_end(remove_from(self, host, self.ref, self.plan.port_ids))
            self.heed()
            if host.id in self.owing and not is_down:
                self.runs_unseen = True
                raise self.uncertain(host)
        if hosts:
            await self.step(RELEASE_ALLOCATION, Allocation(server_id=self.call.server_id))

    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        return schedule_of(
            self.plan.plan,
            self.run_id,
            zone=self.plan.plan.guest.availability_zone,
            host=host or self.plan.host,
            alternates=alternates,
            excluded=[self.source.id, *tried],
        )

    async def build(self, host: HostRef) -> PowerState:
        """Everything on one host, until the guest is there with the power that it had."""
        plan = self.plan.plan
        await self.step(CLAIM, claim_of(plan), on=host, saga=self.attempt, undo=self.ref)
        if plan.image is not None:
            await self.step(FETCH_IMAGE, plan.image, on=host)
        guest = await connected_guest(self, plan)
        await bind(self, plan.guest.ports, host, self.attempt)
        await self.step(SPAWN, guest, on=host, saga=self.attempt, undo=self.ref)
        return await self.let_run(plan.guest.ports, host, stays_off=self.plan.stays_off)

    async def finish(self, host: HostRef, power_state: PowerState) -> Server:
        """From here on the guest is the new one: the point of no return."""
        await remove_from(self, self.source, self.ref, self.plan.port_ids)
        await self.ensure(DROP_FORMER_GUEST, self.ref, on=self.source)
        await self.ensure(DROP_FORMER_CLAIM, self.ref, on=self.source)
        image = self.plan.plan.image
        call = FinishEvacuation(
            **dict(self.ref),
            host_id=host.id,
            vm_state=VmState.STOPPED if self.plan.stays_off else VmState.ACTIVE,
            power_state=power_state,
            image_id=image.id if image is not None else None,
            events=self.event_log(FINISH_EVACUATION.name),
        )
        return await self.must(FINISH_EVACUATION, call)

    def uncertain(self, host: HostRef) -> HostlerError:
        again = f"hostler server evacuate {self.call.server_id}"
        return not_built_twice(host, f"when {host.name} is back and owes nothing, or is declared down: {again}")

    async def give_up(self, error: HostlerError) -> None:
        """It is what it was, and its guest is off when its host returns. The error is in the events."""
        if await self.undo_all(error):
            await self.settle(self.plan.former, error=error)
        else:
            await self.settle(VmState.ERROR, power_state=PowerState.SHUTDOWN, error=error)
