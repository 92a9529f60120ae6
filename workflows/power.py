"""What start, stop and reboot share: take the server, one step on its host, give it back."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from activities.interfaces.servers import Begin, Servers, Target
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.operation import Operation, Request
from workflows.steps import StepDefinition

BEGIN = StepDefinition[Begin, Target](Servers.begin)


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
        self.former = target.former
        self.accept(target.limits, f"{self.operation} {target.name}")
        self.state.host = target.hosts[0].name
        power_state = await self.on_host(target)
        return await self.settle(self.afterwards, power_state=power_state)

    async def give_up(self, error: HostlerError) -> None:
        # Its state is what it was, and so is its fault, if it has one; `error` is in the events.
        await self.settle(self.former)
