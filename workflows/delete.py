"""Delete: remove a server and all that it holds. It only goes forward.

| step | where | undo |
|---|---|---|
| begin | control: any state; a running operation was pre-empted before | - |
| destroy_guest, unbind_ports, drop_claim | every host that may hold something of it | - |
| drop_former_guest, drop_former_claim | the host from which it has moved, until that was confirmed | - |
| withdraw_volume or delete_volume_data | each volume's host | - |
| forget_shelved | control: the image of a server on the shelf | - |
| release_ports, release_block_devices, release_allocation | control | - |
| finish_delete | control: the row stays as DELETED | - |

What a host cannot do now becomes its owed work. Once begun, nothing stops it: not a cancellation either.
"""

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.block_devices import BlockDevices, ReleaseDevices
from activities.interfaces.ports import Ports
from activities.interfaces.scheduling import Allocation
from activities.interfaces.servers import EventLog, ServerRef, Servers, Target
from activities.interfaces.shelves import Shelves
from hostler.contract.errors import HostlerError
from hostler.contract.servers import DeleteRequest, OperationName, Server
from hostler.contract.states import TaskState, VmState
from workflows.block_devices import disconnect
from workflows.concurrency import to_the_end
from workflows.operation import BEGIN, Operation
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

RELEASE_PORTS = StepDefinition[ServerRef, None](Ports.release_ports)
RELEASE_DEVICES = StepDefinition[ReleaseDevices, None](BlockDevices.release_block_devices)
FORGET_SHELVED = StepDefinition[ServerRef, None](Shelves.forget_shelved)
FINISH = StepDefinition[EventLog, Server](Servers.finish_delete)

ALLOWED: Sequence[VmState] = [state for state in VmState if state is not VmState.DELETED]
PLANNED = [
    step.name
    for step in (BEGIN, DESTROY, UNBIND_PORTS, DROP_CLAIM, RELEASE_PORTS, RELEASE_DEVICES, RELEASE_ALLOCATION, FINISH)
]


@workflow.defn(name=OperationName.DELETE.value)
class Delete(Operation[DeleteRequest]):
    """See the table above."""

    operation = OperationName.DELETE

    @workflow.init
    def __init__(self, request: DeleteRequest) -> None:
        super().__init__(request, PLANNED)

    @workflow.run
    async def run(self, request: DeleteRequest) -> Server:
        """Delete the server."""
        return await self.conduct()

    async def carry_out(self) -> Server:
        target = await self.unbroken(BEGIN, self.begin(ALLOWED, TaskState.DELETING))
        self.accept(target.limits, f"delete {target.name}")
        return await to_the_end(self._remove(target))

    async def _remove(self, target: Target) -> Server:
        """All of it, whatever comes: half a server is of no use to anybody."""
        ref = ServerRef(server_id=target.server_id, run_id=self.run_id)
        for host in target.hosts:
            self.state.host = host.name
            await remove_from(self, host, ref, target.port_ids)
        if target.move is not None:
            await self.ensure(DROP_FORMER_GUEST, ref, on=target.move.source)
            await self.ensure(DROP_FORMER_CLAIM, ref, on=target.move.source)
        await disconnect(self, target.volumes)
        if target.shelved_image_id is not None:
            await self.must(FORGET_SHELVED, ref)
        await self.must(RELEASE_PORTS, ref)
        await self.must(RELEASE_DEVICES, ReleaseDevices(server_id=target.server_id, run_id=self.run_id))
        await self.must(RELEASE_ALLOCATION, Allocation(server_id=target.server_id))
        return await self.must(FINISH, self.event_log(FINISH.name))

    async def give_up(self, error: HostlerError) -> None:
        await self.settle(VmState.ERROR, error=error)
