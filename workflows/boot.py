"""Boot: build a server and let it run.

| step | where | leaves behind | undo |
|---|---|---|---|
| accept | control | the row, quota use | settle: ERROR with its fault, quota use given back |
| schedule | control | allocation | release_allocation |
| claim_resources | host | claim | drop_claim |
| allocate_ports ‖ prep_block_devices, create_volume_data, export_volume ‖ fetch_image | control ‖ control, volume hosts ‖ host | ports ‖ volumes, exports ‖ cached image | release_ports ‖ release_block_devices, withdraw_volume or delete_volume_data ‖ none: the cache keeps it |
| bind_ports | host | bridge, DHCP entry, NAT | unbind_ports |
| spawn, beside set_task_state | host, control | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the host | - | - |
| resume_guest | host | - | destroy_guest, of spawn |
| activate | control | - | - : it is the point of no return |

A host that fails is left, and the next one is taken: see workflows/placing.py.
"""  # noqa: E501 - a table

from temporalio import workflow

from activities.interfaces.block_devices import PrepareDevices, ReleaseDevices
from activities.interfaces.ports import AllocatePorts, Ports
from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import AcceptBoot, Activate, BootPlan, HostRef, Servers, SetTaskState
from hostler.contract.errors import HostlerError
from hostler.contract.fingerprint import fingerprint
from hostler.contract.guests import PortBinding, VolumeConnection
from hostler.contract.servers import BootRequest, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE, PREP_DEVICES, connect
from workflows.build import claim, guest, wanted
from workflows.building import BIND_PORTS, CLAIM, RESUME, SCHEDULE, SET_TASK_STATE, SPAWN, bind
from workflows.concurrency import to_the_end, together
from workflows.placing import PlacedOperation
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.steps import StepDefinition

ACCEPT = StepDefinition[AcceptBoot, BootPlan](Servers.accept)
ALLOCATE_PORTS = StepDefinition[AllocatePorts, list[PortBinding]](Ports.allocate_ports, undo=Ports.release_ports)
ACTIVATE = StepDefinition[Activate, Server](Servers.activate)

PLANNED = (
    *(s.name for s in (ACCEPT, SCHEDULE, CLAIM, ALLOCATE_PORTS, PREP_DEVICES, FETCH_IMAGE, BIND_PORTS, SPAWN)),
    *(WAIT_VIF_PLUGGED, RESUME.name, ACTIVATE.name),
)


@workflow.defn(name=OperationName.BOOT.value)
class Boot(PlacedOperation[BootRequest]):
    """See the table above."""

    operation, unbegun = OperationName.BOOT, VmState.ERROR

    @workflow.init
    def __init__(self, request: BootRequest) -> None:
        super().__init__(request, PLANNED)
        self.ports: list[PortBinding] | None = None
        self.connections: dict[str, VolumeConnection] | None = None

    @workflow.run
    async def run(self, request: BootRequest) -> Server:
        """Boot the server."""
        return await self.conduct()

    async def carry_out(self) -> Server:
        accept = AcceptBoot(request=self.call, fingerprint=fingerprint(self.call), run_id=self.run_id)
        self.plan = await self.unbroken(ACCEPT, accept)
        title = f"boot {self.plan.name}, {self.plan.flavor.name}, image {self.call.image or 'none'}"
        self.accept(self.plan.limits, title, self.plan.former_run_id)
        if self.plan.repeated is not None:
            return self.plan.repeated
        host, power_state = await self.on_some_host(self.build)
        events = self.event_log(ACTIVATE.name)
        call = Activate(**dict(self.ref), host_id=host.id, power_state=power_state, events=events)
        return await to_the_end(self.must(ACTIVATE, call))

    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        return wanted(self.call, self.plan, self.run_id, alternates, tried, host)

    async def build(self, host: HostRef) -> PowerState:
        """Everything on one host, until the guest runs there."""
        plan = self.plan
        await self.step(CLAIM, claim(plan), on=host, saga=self.attempt, undo=self.ref)
        fetch = [self.step(FETCH_IMAGE, plan.image, on=host)] if plan.image else []
        await together(self.allocate_ports(plan), self.prepare_devices(plan), *fetch)
        assert self.ports is not None
        assert self.connections is not None
        await bind(self, self.ports, host, self.attempt)
        spec = guest(self.call, plan, self.ports, self.connections)
        spawning = SetTaskState(server_id=plan.server_id, run_id=self.run_id, task_state=TaskState.SPAWNING)
        await together(
            self.step(SPAWN, spec, on=host, saga=self.attempt, undo=self.ref),
            self.step(SET_TASK_STATE, spawning),
        )
        return await self.let_run(self.ports, host)

    async def allocate_ports(self, plan: BootPlan) -> None:
        """Addresses; they stay when the host changes."""
        if self.ports is None:
            call = AllocatePorts(server_id=plan.server_id, run_id=self.run_id, name=plan.name, networks=plan.networks)
            self.ports = await self.step(ALLOCATE_PORTS, call, saga=self.whole, undo=self.ref)

    async def prepare_devices(self, plan: BootPlan) -> None:
        """Volumes, made and exported; they stay when the host changes."""
        if self.connections is None:
            call = PrepareDevices(server_id=plan.server_id, run_id=self.run_id, disks=plan.disks)
            undo = ReleaseDevices(server_id=plan.server_id, run_id=self.run_id, undo_boot=True)
            works = await self.step(PREP_DEVICES, call, saga=self.whole, undo=undo)
            self.connections = await connect(self, works, self.whole)

    async def give_up(self, error: HostlerError) -> None:
        await self.unwind(self.attempt)
        await self.unwind(self.whole)
        self.tell_all(error)
        await self.settle(VmState.ERROR, error=error)
