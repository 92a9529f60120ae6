"""Shelve-offload: a shelved server gives its host up. It only goes forward.

| step | where | undo |
|---|---|---|
| begin | control | - |
| destroy_guest, unbind_ports, drop_claim | its host; owed when it is silent | - |
| withdraw_volume | each volume's host; owed when it is silent | - |
| finish_offload | control: SHELVED_OFFLOADED, its allocation given back | - |
"""

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.servers import Target
from activities.interfaces.shelves import FinishOffload, Shelves
from hostler.contract.errors import HostlerError
from hostler.contract.servers import OperationName, Server, ShelveOffloadRequest
from hostler.contract.states import TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.operation import BEGIN, Operation
from workflows.shelving import LEAVING, leave_host
from workflows.steps import StepDefinition

FINISH_OFFLOAD = StepDefinition[FinishOffload, Server](Shelves.finish_offload)


@workflow.defn(name=OperationName.SHELVE_OFFLOAD.value)
class ShelveOffload(Operation[ShelveOffloadRequest]):
    """See the table above."""

    operation, afterwards = OperationName.SHELVE_OFFLOAD, VmState.SHELVED_OFFLOADED

    @workflow.init
    def __init__(self, request: ShelveOffloadRequest) -> None:
        super().__init__(request, (BEGIN.name, *LEAVING, FINISH_OFFLOAD.name))

    @workflow.run
    async def run(self, request: ShelveOffloadRequest) -> Server:
        """Take the server off its host."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible."""
        return (VmState.SHELVED,)

    async def carry_out(self) -> Server:
        target = await self.unbroken(BEGIN, self.begin(self.allowed(), TaskState.SHELVING_OFFLOADING))
        self.accept(target.limits, f"offload {target.name}")
        self.state.host = target.hosts[0].name
        return await to_the_end(self.offload(target))

    async def offload(self, target: Target) -> Server:
        """Its disk is an image."""
        await leave_host(self, target)
        events = self.event_log(FINISH_OFFLOAD.name)
        call = FinishOffload(server_id=target.server_id, run_id=self.run_id, events=events)
        return await self.must(FINISH_OFFLOAD, call)

    async def give_up(self, error: HostlerError) -> None:
        await self.settle(VmState.SHELVED)
