"""Start: power a stopped server on.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin | control | task_state | settle |
| start_guest | host | a running guest | stop_guest at once |
| settle | control | - | - : it is the point of no return |
"""

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.servers import ServerRef, Target
from hostler.contract.servers import OperationName, Server, StartRequest
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.power import POWER_ON, PowerOperation


@workflow.defn(name=OperationName.START.value)
class Start(PowerOperation[StartRequest]):
    """See the table above."""

    operation = OperationName.START
    afterwards = VmState.ACTIVE

    @workflow.init
    def __init__(self, request: StartRequest) -> None:
        super().__init__(request, ("begin", POWER_ON.name, "settle"))

    @workflow.run
    async def run(self, request: StartRequest) -> Server:
        """Start the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        return (VmState.STOPPED,)

    def task_state(self) -> TaskState:
        return TaskState.POWERING_ON

    async def on_host(self, target: Target) -> PowerState:
        return await self.step(POWER_ON, ServerRef(server_id=target.server_id), on=target.hosts[0])
