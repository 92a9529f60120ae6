"""What start, stop and reboot share: take the server, one step on its host, give it back.

The undo of that step is the power that the guest had before.
"""

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from temporalio.exceptions import ActivityError

from activities.interfaces.guests import Guests, StopGuest
from activities.interfaces.servers import ServerRef, Target
from hostler.contract.errors import HostlerError, Preempted
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.front_door import Request
from workflows.operation import BEGIN, Operation
from workflows.steps import StepDefinition

POWER_ON = StepDefinition[ServerRef, PowerState](Guests.start_guest)
POWER_OFF = StepDefinition[StopGuest, PowerState](Guests.stop_guest)


class PowerOperation(Operation[Request]):
    """An operation on a server that stays where it is."""

    afterwards: ClassVar[VmState]

    @abstractmethod
    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible."""

    @abstractmethod
    def task_state(self) -> TaskState:
        """What to show meanwhile."""

    @abstractmethod
    async def on_host(self, target: Target) -> PowerState:
        """The step on the server's host."""

    async def carry_out(self) -> Server:
        target = await self.unbroken(BEGIN, self.begin(self.allowed(), self.task_state()))
        self.target = target
        self.accept(target.limits, f"{self.operation} {target.name}")
        self.state.host = target.hosts[0].name
        power_state = await self.on_host(target)
        return await self.settle(self.afterwards, power_state=power_state)

    async def give_up(self, error: HostlerError) -> None:
        # Its state is what it was, and so is its fault, if it has one; `error` is in the events.
        power_state = None if isinstance(error, Preempted) else await self._restore(self.target)
        await self.settle(self.target.former, power_state=power_state)

    async def _restore(self, target: Target) -> PowerState | None:
        """Bring the guest back to the power that it had: a step that failed may have got anywhere.

        None when the host does not do it: once it is heard again, the row follows the guest.
        """
        ref, host = ServerRef(server_id=target.server_id), target.hosts[0]
        if not any(step.host for step in self.state.steps) or host.id in self.silent:
            return None
        try:
            if target.former is VmState.ACTIVE:
                return await self.step(POWER_ON, ref, on=host)
            if target.former is VmState.STOPPED:
                pull_the_plug = StopGuest(server_id=target.server_id, timeout=timedelta(0))
                return await self.step(POWER_OFF, pull_the_plug, on=host)
        except ActivityError:
            pass  # it shows in the progress
        return None
