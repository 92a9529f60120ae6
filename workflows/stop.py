"""Stop: power a server off, softly if it obeys in time.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin | control | task_state | settle |
| stop_guest | host | a guest that is off | start_guest |
| settle | control | - | - : it is the point of no return |
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from activities.interfaces.guests import Guests, StopGuest
from activities.interfaces.servers import Target
from hostler.contract.servers import OperationName, Server, StopRequest
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.power import PowerOperation
from workflows.steps import StepDefinition

STOP = StepDefinition[StopGuest, PowerState](
    Guests.stop_guest, timeout=timedelta(hours=1), heartbeat=timedelta(seconds=30)
)


@workflow.defn(name=OperationName.STOP.value)
class Stop(PowerOperation[StopRequest]):
    """See the table above."""

    operation = OperationName.STOP
    afterwards = VmState.STOPPED

    @workflow.init
    def __init__(self, request: StopRequest) -> None:
        super().__init__(request, ("begin", STOP.name, "settle"))

    @workflow.run
    async def run(self, request: StopRequest) -> Server:
        """Stop the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        return (VmState.ACTIVE, VmState.ERROR)

    def task_state(self) -> TaskState:
        return TaskState.POWERING_OFF

    async def on_host(self, target: Target) -> PowerState:
        timeout = self.call.timeout if self.call.timeout is not None else self.limits.stop
        patient = replace(STOP, timeout=timeout + STOP.timeout)
        return await self.step(patient, StopGuest(server_id=target.server_id, timeout=timeout), on=target.hosts[0])
