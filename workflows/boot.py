"""Boot: build a server and let it run.

| step | where | leaves behind | undo |
|---|---|---|---|
| accept | control | the row, quota use | settle: ERROR with its fault, quota use given back |
| schedule | control | allocation | release_allocation |
| claim_resources | host | claim | drop_claim |
| allocate_ports ‖ prep_block_devices ‖ fetch_image | control ‖ control, volume hosts ‖ host | ports ‖ volumes, exports ‖ cached image | release_ports ‖ release_block_devices, withdrawn, deleted ‖ none: the cache keeps it |
| bind_ports | host | bridge, DHCP entry, NAT | unbind_ports |
| spawn | host | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the host | - | - |
| resume_guest | host | - | destroy_guest, of spawn |
| activate | control | - | - : it is the point of no return |

A host that fails is left: what is bound to it (`attempt`) is undone, the rest (`whole`) stays, and the next one is taken.
From `resume_guest` on the guest may be running: then the server is not built again before its host has confirmed that
the guest is gone.
"""  # noqa: E501 - a table

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.interfaces.block_devices import PrepareDevices, ReleaseDevices
from activities.interfaces.guests import Claims, Guests
from activities.interfaces.ports import AllocatePorts, BindPorts, HostPorts, PortIds, Ports
from activities.interfaces.scheduling import Allocation, Placement, Schedule, Scheduling, Story
from activities.interfaces.servers import (
    AcceptBoot,
    Activate,
    BootPlan,
    HostRef,
    ServerRef,
    Servers,
    SetTaskState,
)
from hostler.contract.errors import (
    BuildFailed,
    FilterReport,
    HostlerError,
    NoValidHost,
    Preempted,
)
from hostler.contract.fingerprint import fingerprint
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding, VolumeConnection
from hostler.contract.servers import BootRequest, Choice, Decision, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE, PREP_DEVICES, connect
from workflows.build import attempt_report, claim, guest, may_be_running, wanted, ways_out
from workflows.concurrency import to_the_end, together
from workflows.failures import Verdict, judge
from workflows.operation import Operation
from workflows.plugging import WAIT_VIF_PLUGGED, wait_vif_plugged
from workflows.steps import Saga, StepDefinition

ACCEPT = StepDefinition[AcceptBoot, BootPlan](Servers.accept)
SCHEDULE = StepDefinition[Schedule, Placement](Scheduling.schedule, undo=Scheduling.release_allocation)
EXPLAIN = StepDefinition[Schedule, Story](Scheduling.explain)
CLAIM = StepDefinition[ClaimSpec, None](Claims.claim_resources, undo=Claims.drop_claim)
ALLOCATE_PORTS = StepDefinition[AllocatePorts, list[PortBinding]](Ports.allocate_ports, undo=Ports.release_ports)
BIND_PORTS = StepDefinition[BindPorts, None](HostPorts.bind_ports, undo=HostPorts.unbind_ports)
SET_TASK_STATE = StepDefinition[SetTaskState, None](Servers.set_task_state)
SPAWN = StepDefinition[GuestSpec, None](
    Guests.spawn, undo=Guests.destroy_guest, timeout=timedelta(minutes=5), heartbeat=timedelta(seconds=30)
)
RESUME = StepDefinition[ServerRef, PowerState](Guests.resume_guest)
ACTIVATE = StepDefinition[Activate, Server](Servers.activate)

PLANNED = (
    *(s.name for s in (ACCEPT, SCHEDULE, CLAIM, ALLOCATE_PORTS, PREP_DEVICES, FETCH_IMAGE, BIND_PORTS, SPAWN)),
    *(WAIT_VIF_PLUGGED, RESUME.name, ACTIVATE.name),
)


@workflow.defn(name=OperationName.BOOT.value)
class Boot(Operation[BootRequest]):
    """See the table above. `whole` and `attempt` are the undos of the boot and of what is bound to the present host."""

    operation, unbegun = OperationName.BOOT, VmState.ERROR

    @workflow.init
    def __init__(self, request: BootRequest) -> None:
        super().__init__(request, PLANNED)
        self.ref = ServerRef(server_id=request.server_id, run_id=self.run_id)
        self.whole, self.attempt = Saga(), Saga()
        self.filters: list[FilterReport] = []
        self.considered = 0
        self.ports: list[PortBinding] | None = None
        self.connections: dict[str, VolumeConnection] | None = None
        self.may_run = False
        self.host: HostRef | None = None
        self.tried: list[str] = []
        self.alternates: list[str] = []

    @workflow.run
    async def run(self, request: BootRequest) -> Server:
        """Boot the server."""
        return await self.conduct()

    async def carry_out(self) -> Server:
        accept = AcceptBoot(request=self.call, fingerprint=fingerprint(self.call), run_id=self.run_id)
        plan = await self.unbroken(ACCEPT, accept)
        title = f"boot {plan.name}, {plan.flavor.name}, image {self.call.image or 'none'}"
        self.accept(plan.limits, title, plan.former_run_id)
        if plan.repeated is not None:
            return plan.repeated
        while True:
            self.state.attempt, self.state.host = len(self.attempts) + 1, None
            host = await self.schedule(plan)
            self.arrive()
            try:
                power_state = await self.build(plan, host)
            except (FailureError, HostlerError) as failure:
                await self.leave(plan, host, judge(failure, host=host.name))
            else:
                events = self.event_log(ACTIVATE.name)
                call = Activate(**dict(self.ref), host_id=host.id, power_state=power_state, events=events)
                return await to_the_end(self.must(ACTIVATE, call))

    async def schedule(self, plan: BootPlan) -> HostRef:
        """Take the next host: where an operator sends it, an alternate, else the best that a new search finds."""

        def ask(decision: Decision | None = None) -> Schedule:
            if decision is not None:  # whoever decides to search again may have repaired what had failed
                self.alternates, self.tried = [], []
            if self.destination is not None:
                return wanted(self.call, plan, self.run_id, [], [], self.destination.id)
            return wanted(self.call, plan, self.run_id, self.alternates, self.tried)

        undo = Allocation(server_id=plan.server_id)
        placement = await self.step(SCHEDULE, ask(), saga=self.attempt, undo=undo, again=ask)
        self.host, self.alternates, self.state.host = placement.host, placement.alternates, placement.host.name
        return placement.host

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        attempts_left = self.state.attempt < self.limits.max_attempts
        return ways_out(verdict, on, self.host, may_run=self.may_run, attempts_left=attempts_left)

    async def build(self, plan: BootPlan, host: HostRef) -> PowerState:
        """Everything on one host, until the guest runs there."""
        await self.step(CLAIM, claim(plan), on=host, saga=self.attempt, undo=self.ref)
        fetch = [self.step(FETCH_IMAGE, plan.image, on=host)] if plan.image else []
        await together(self.allocate_ports(plan), self.prepare_devices(plan), *fetch)
        assert self.ports is not None
        assert self.connections is not None
        if self.ports:
            bound = PortIds(server_id=plan.server_id, port_ids=[port.port_id for port in self.ports])
            call = BindPorts(server_id=plan.server_id, ports=self.ports)
            await self.step(BIND_PORTS, call, on=host, saga=self.attempt, undo=bound)
        spec = guest(self.call, plan, self.ports, self.connections)
        spawning = SetTaskState(server_id=plan.server_id, run_id=self.run_id, task_state=TaskState.SPAWNING)
        await together(
            self.step(SPAWN, spec, on=host, saga=self.attempt, undo=self.ref),
            self.step(SET_TASK_STATE, spawning),
        )
        await wait_vif_plugged(self, self.ports, host)
        self.may_run = True
        return await self.step(RESUME, self.ref, on=host)

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

    async def leave(self, plan: BootPlan, host: HostRef, verdict: Verdict) -> None:
        """Clean up behind a failed attempt; returns when another host may be tried."""
        self.attempts.append(attempt_report(self.state, host, verdict))
        self.tried.append(host.id)
        clean = await to_the_end(self.unwind(self.attempt))
        self.host = None
        if not verdict.reschedule and not self.moving:
            raise verdict.error
        if self.may_run and not clean:
            raise may_be_running(host)
        self.may_run = False
        if self.state.attempt >= plan.limits.max_attempts and not self.moving:
            story = await self.step(EXPLAIN, wanted(self.call, plan, self.run_id, [], self.tried))
            self.considered, self.filters = story.considered, story.filters
            raise BuildFailed(f"the build failed on all {len(self.attempts)} hosts that were tried")

    async def give_up(self, error: HostlerError) -> None:
        await self.unwind(self.attempt)
        await self.unwind(self.whole)
        if isinstance(error, NoValidHost):
            self.considered, self.filters = error.detail.hosts_considered or 0, error.detail.filters
        if not isinstance(error, Preempted):
            error.detail.attempts = self.attempts
            error.detail.hosts_considered, error.detail.filters = self.considered, self.filters
        await self.settle(VmState.ERROR, error=error)
