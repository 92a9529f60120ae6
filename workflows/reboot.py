"""Reboot: soft asks the guest to shut down and starts it again; hard resets it at once, and recovers one in error.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin | control | task_state | settle |
| reboot_guest | host | a running guest | the power that it had: start_guest, stop_guest |
| settle | control | - | - : it is the point of no return |
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from activities.interfaces.guests import Guests, RebootGuest
from activities.interfaces.servers import Target
from hostler.contract.servers import OperationName, RebootRequest, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.power import PowerOperation
from workflows.steps import StepDefinition

REBOOT = StepDefinition[RebootGuest, PowerState](
    Guests.reboot_guest, timeout=timedelta(hours=1), heartbeat=timedelta(seconds=30)
)


@workflow.defn(name=OperationName.REBOOT.value)
class Reboot(PowerOperation[RebootRequest]):
    """See the table above."""

    operation = OperationName.REBOOT
    afterwards = VmState.ACTIVE

    @workflow.init
    def __init__(self, request: RebootRequest) -> None:
        super().__init__(request, ("begin", REBOOT.name, "settle"))

    @workflow.run
    async def run(self, request: RebootRequest) -> Server:
        """Reboot the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """A hard reboot is also the way out of an error, and of a stop."""
        return (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR) if self.call.hard else (VmState.ACTIVE,)

    def task_state(self) -> TaskState:
        return TaskState.REBOOTING_HARD if self.call.hard else TaskState.REBOOTING

    async def on_host(self, target: Target) -> PowerState:
        timeout = self.call.timeout if self.call.timeout is not None else self.limits.stop
        call = RebootGuest(server_id=target.server_id, timeout=timeout, hard=self.call.hard)
        patient = replace(REBOOT, timeout=timeout + REBOOT.timeout)
        return await self.step(patient, call, on=target.hosts[0])
