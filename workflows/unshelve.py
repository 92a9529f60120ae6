"""Unshelve: bring a shelved server back, on its host or, once it has given that up, on another.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_unshelve | control | row taken | settle |
| start_guest | its host, where it still has one; then it is as good as back | a running guest | stop_guest |
| destroy_guest, unbind_ports, drop_claim; release_allocation | hosts of an unshelve that was cut short; owed by those that are declared down | - | - |
| schedule | control | allocation | release_allocation |
| claim_resources | host | claim | drop_claim |
| fetch_image ‖ export_volume | host ‖ volume hosts | cached image ‖ exports | none ‖ withdraw_volume |
| bind_ports | host | bridge, DHCP entry, NAT | unbind_ports |
| spawn | host | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the host | - | - |
| resume_guest | host | - | destroy_guest, of spawn |
| finish_unshelve | control: ACTIVE, the image that kept its disk removed | - | - : it is the point of no return |

A host that fails is left, and the next one is taken: see workflows/placing.py.
"""  # noqa: E501 - a table

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow

from activities.interfaces.guests import Guests, StopGuest
from activities.interfaces.ports import PortIds
from activities.interfaces.scheduling import Allocation, Schedule
from activities.interfaces.servers import HostRef, ServerRef
from activities.interfaces.shelves import BeginUnshelve, FinishUnshelve, Shelves, UnshelvePlan
from hostler.contract.errors import HostlerError
from hostler.contract.guests import VolumeConnection
from hostler.contract.servers import OperationName, Server, UnshelveRequest
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE, connect, connected
from workflows.building import BIND_PORTS, CLAIM, RESUME, SCHEDULE, SPAWN, bind, claim_of, schedule_of
from workflows.concurrency import to_the_end, together
from workflows.placing import PlacedOperation, not_built_twice
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.removing import DESTROY, DROP_CLAIM, RELEASE_ALLOCATION, UNBIND_PORTS, remove_from
from workflows.steps import StepDefinition

BEGIN_UNSHELVE = StepDefinition[BeginUnshelve, UnshelvePlan](Shelves.begin_unshelve)
START = StepDefinition[ServerRef, PowerState](Guests.start_guest, undo=Guests.stop_guest)
FINISH_UNSHELVE = StepDefinition[FinishUnshelve, Server](Shelves.finish_unshelve)
OWED_WHERE_DOWN = "unshelve-owed-where-down"
PLANNED = (
    *(BEGIN_UNSHELVE.name, SCHEDULE.name, CLAIM.name, FETCH_IMAGE.name, BIND_PORTS.name, SPAWN.name),
    *(WAIT_VIF_PLUGGED, RESUME.name, FINISH_UNSHELVE.name),
)


@workflow.defn(name=OperationName.UNSHELVE.value)
class Unshelve(PlacedOperation[UnshelveRequest]):
    """See the table above."""

    operation, afterwards = OperationName.UNSHELVE, VmState.ACTIVE
    may_be_refused_late = True

    @workflow.init
    def __init__(self, request: UnshelveRequest) -> None:
        super().__init__(request, PLANNED)
        self.connections: dict[str, VolumeConnection] | None = None
        self.cleared = False

    @workflow.run
    async def run(self, request: UnshelveRequest) -> Server:
        """Bring the server back."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible; `begin_unshelve` adds the error that an unshelve has left."""
        return (VmState.SHELVED_OFFLOADED, VmState.SHELVED)

    async def carry_out(self) -> Server:
        begin = BeginUnshelve(
            **dict(self.begin(self.allowed(), TaskState.UNSHELVING)),
            availability_zone=self.call.availability_zone,
            host=self.call.host,
            max_attempts=self.call.max_attempts,
        )
        self.plan = await self.unbroken(BEGIN_UNSHELVE, begin)
        self.accept(self.plan.limits, f"unshelve {self.plan.name}")
        if self.plan.offloaded:
            await self.clear()
            host, power_state = await self.on_some_host(self.build)
        else:
            host = self.plan.hosts[0]
            power_state = await self.start(host)
        call = FinishUnshelve(
            **dict(self.ref),
            host_id=host.id,
            power_state=power_state,
            availability_zone=self.plan.availability_zone,
            events=self.event_log(FINISH_UNSHELVE.name),
        )
        return await to_the_end(self.must(FINISH_UNSHELVE, call))

    async def clear(self) -> None:
        """Remove what an unshelve that was cut short has left, where it had reserved: it may be running."""
        ports = PortIds(server_id=self.call.server_id, port_ids=self.plan.port_ids)
        for host in self.plan.hosts:
            if host.id in self.plan.down and workflow.patched(OWED_WHERE_DOWN):  # so the guest is off
                self.silent.add(host.id)
                await to_the_end(remove_from(self, host, self.ref, self.plan.port_ids))
                continue
            await self.step(DESTROY, self.ref, on=host)
            await self.step(UNBIND_PORTS, ports, on=host)
            await self.step(DROP_CLAIM, self.ref, on=host)
        if self.plan.hosts:
            await self.step(RELEASE_ALLOCATION, Allocation(server_id=self.call.server_id))
        self.cleared = True

    async def start(self, host: HostRef) -> PowerState:
        """It is still there, and off."""
        self.state.host = host.name
        undo = StopGuest(server_id=self.call.server_id, timeout=timedelta(0))
        return await self.step(START, self.ref, on=host, saga=self.whole, undo=undo)

    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        return schedule_of(
            self.plan.plan,
            self.run_id,
            zone=self.plan.availability_zone,
            host=host or self.plan.host,
            alternates=alternates,
            excluded=tried,
        )

    async def build(self, host: HostRef) -> PowerState:
        """Everything on one host, until the guest runs there."""
        plan = self.plan.plan
        await self.step(CLAIM, claim_of(plan), on=host, saga=self.attempt, undo=self.ref)
        fetch = [self.step(FETCH_IMAGE, plan.image, on=host)] if plan.image else []
        await together(self.connect(), *fetch)
        assert self.connections is not None
        await bind(self, plan.guest.ports, host, self.attempt)
        guest = plan.guest.model_copy(update={"disks": connected(plan.guest.disks, self.connections)})
        await self.step(SPAWN, guest, on=host, saga=self.attempt, undo=self.ref)
        return await self.let_run(plan.guest.ports, host)

    async def connect(self) -> None:
        """Serve its volumes again; they stay so when the host changes."""
        if self.connections is None:
            self.connections = await connect(self, self.plan.plan.volumes, self.whole)

    def uncertain(self, host: HostRef) -> HostlerError:
        return not_built_twice(
            host,
            f"when that host is back, or declared down: hostler server unshelve {self.call.server_id}; "
            "do not delete the server before, its disk would go with it",
        )

    async def give_up(self, error: HostlerError) -> None:
        """It stays on the shelf; but one that may be running somewhere must not be brought back a second time."""
        if await self.undo_all(error):
            await self.settle(self.plan.former, error=error, keeps_others=not self.cleared)
        else:
            await self.settle(VmState.ERROR, error=error)
