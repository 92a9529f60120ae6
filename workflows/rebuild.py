"""Rebuild: a server's root disk anew, from an image; identity, addresses and volumes stay.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_rebuild | control | row taken | settle |
| fetch_image | host | cached image | none: the cache keeps it |
| export_volume | volume hosts | exports, which are there | none |
| bring_back_guest, expect_guest | host, of a server in ERROR | - | - |
| stop_guest, of a guest that runs | host | a guest that is off | start_guest |
| set_aside_guest, where there is a guest | host | former guest | bring_back_guest |
| spawn | host | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the host | - | - |
| resume_guest, or stop_guest | host | - | destroy_guest, of spawn |
| drop_former_guest | host; owed when it is silent | - | - : from here on it only goes forward |
| finish_rebuild | control | - | - |
"""

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.guests import ExpectGuest, StopGuest
from activities.interfaces.rebuilds import BeginRebuild, FinishRebuild, RebuildPlan, Rebuilds
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import HostlerError
from hostler.contract.servers import OperationName, RebuildRequest, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE, connected
from workflows.building import RESUME, SPAWN, connections
from workflows.concurrency import to_the_end
from workflows.operation import Operation
from workflows.plugging import WAIT_VIF_PLUGGED, wait_vif_plugged
from workflows.removing import DROP_FORMER_GUEST
from workflows.source import (
    BRING_BACK_GUEST,
    EXPECT_GUEST,
    SET_ASIDE_GUEST,
    STOP,
    go_off,
    keeping_what_is_there,
)
from workflows.steps import Saga, StepDefinition

BEGIN_REBUILD = StepDefinition[BeginRebuild, RebuildPlan](Rebuilds.begin_rebuild)
FINISH_REBUILD = StepDefinition[FinishRebuild, Server](Rebuilds.finish_rebuild)
STOPS_IN_ERROR = "rebuild-stops-in-error"
PLANNED = (
    *(BEGIN_REBUILD.name, FETCH_IMAGE.name, STOP.name, SET_ASIDE_GUEST.name, SPAWN.name, WAIT_VIF_PLUGGED),
    *(RESUME.name, DROP_FORMER_GUEST.name, FINISH_REBUILD.name),
)


@workflow.defn(name=OperationName.REBUILD.value)
class Rebuild(Operation[RebuildRequest]):
    """See the table above."""

    operation, afterwards = OperationName.REBUILD, VmState.ACTIVE
    may_be_refused_late = True

    @workflow.init
    def __init__(self, request: RebuildRequest) -> None:
        super().__init__(request, PLANNED)
        self.saga = Saga()
        self.ref = ServerRef(server_id=request.server_id, run_id=self.run_id)

    @workflow.run
    async def run(self, request: RebuildRequest) -> Server:
        """Rebuild the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """It is also a way out of an error."""
        return (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)

    async def carry_out(self) -> Server:
        call = self.call
        begin = BeginRebuild(
            **dict(self.begin(self.allowed(), TaskState.REBUILDING)),
            image=call.image,
            key_name=call.key_name,
            user_data=call.user_data,
            admin_password=call.admin_password,
            preserve_ephemeral=call.preserve_ephemeral,
        )
        self.plan = await self.unbroken(BEGIN_REBUILD, begin)
        self.accept(self.plan.limits, f"rebuild {self.plan.name}, image {self.plan.image_name}")
        host = self.plan.hosts[0]
        self.state.host = host.name
        power_state = await self.build(host)
        return await to_the_end(self.finish(host, power_state))

    async def build(self, host: HostRef) -> PowerState:
        """The new guest in the place of the former one."""
        plan = self.plan.plan
        assert plan.image is not None
        await self.step(FETCH_IMAGE, plan.image, on=host)
        volumes = await connections(self, plan)
        found = await self.find_guest(host)
        if self.must_stop(found):
            stop = StopGuest(server_id=self.call.server_id, timeout=self.limits.stop)
            await self.step(STOP, stop, on=host, saga=self.saga, undo=self.ref)
        if found is not PowerState.NOSTATE:
            with keeping_what_is_there(self.saga, host):
                await self.step(SET_ASIDE_GUEST, self.ref, on=host, saga=self.saga, undo=self.ref)
        guest = plan.guest.model_copy(update={"disks": connected(plan.guest.disks, volumes)})
        await self.step(SPAWN, guest, on=host, saga=self.saga, undo=self.ref)
        if self.plan.former is VmState.STOPPED:
            return await go_off(self, self.call.server_id, host)
        await wait_vif_plugged(self, plan.guest.ports, host)
        return await self.step(RESUME, self.ref, on=host)

    async def find_guest(self, host: HostRef) -> PowerState:
        """Of a server in error it may be in any state, or gone."""
        if self.plan.former is not VmState.ERROR:
            return PowerState.RUNNING if self.plan.former is VmState.ACTIVE else PowerState.SHUTDOWN
        # One that was cut short may have set a guest aside.
        await self.step(BRING_BACK_GUEST, self.ref, on=host)
        # Only what can be set aside has disks that can be kept.
        call = ExpectGuest(server_id=self.call.server_id, may_be_gone=not self.call.preserve_ephemeral)
        return await self.step(EXPECT_GUEST, call, on=host)

    def must_stop(self, found: PowerState) -> bool:
        """Whether the guest is to be started again should the rebuild be undone."""
        if found in (PowerState.SHUTDOWN, PowerState.NOSTATE):
            return False
        # What ran under the former code pulled the plug of a server in error.
        return self.plan.former is VmState.ACTIVE or workflow.patched(STOPS_IN_ERROR)

    async def finish(self, host: HostRef, power_state: PowerState) -> Server:
        """From here on the guest is the new one: the point of no return."""
        assert self.plan.plan.image is not None
        await self.ensure(DROP_FORMER_GUEST, self.ref, on=host)
        stopped = self.plan.former is VmState.STOPPED
        call = FinishRebuild(
            **dict(self.ref),
            vm_state=VmState.STOPPED if stopped else VmState.ACTIVE,
            power_state=power_state,
            image_id=self.plan.plan.image.id,
            image_name=self.plan.image_name,
            key_name=self.plan.key_name,
            public_keys=self.plan.plan.guest.public_keys,
            user_data=self.call.user_data,
            events=self.event_log(FINISH_REBUILD.name),
        )
        return await self.must(FINISH_REBUILD, call)

    async def give_up(self, error: HostlerError) -> None:
        # Its state is what it was, and so is its fault, if it has one; `error` is in the events.
        await self.unwind(self.saga)
        await self.settle(None if self.plan.former is VmState.ERROR else self.plan.former)
