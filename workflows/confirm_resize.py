"""Confirm a resize or migration: the server stays as it is now, and what it left behind is removed.

| step | where | undo |
|---|---|---|
| begin | control | settle |
| expect_guest | the server's host | - |
| drop_former_guest, unbind_ports (where that is another host), drop_former_claim | source; owed when it is silent | - : from here on it only goes forward |
| confirm_move | control: the former allocation is given back | - |
"""  # noqa: E501 - a table

from collections.abc import Sequence

from temporalio import workflow

from activities.interfaces.guests import ExpectGuest
from activities.interfaces.moves import EndMove, Moves
from activities.interfaces.ports import PortIds
from activities.interfaces.servers import ServerRef, Target
from hostler.contract.errors import HostlerError
from hostler.contract.servers import ConfirmResizeRequest, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.operation import BEGIN, Operation
from workflows.refusals import no_move
from workflows.removing import DROP_FORMER_CLAIM, DROP_FORMER_GUEST, UNBIND_PORTS
from workflows.source import EXPECT_GUEST
from workflows.steps import StepDefinition

CONFIRM_MOVE = StepDefinition[EndMove, Server](Moves.confirm_move)
STEPS = (BEGIN, EXPECT_GUEST, DROP_FORMER_GUEST, UNBIND_PORTS, DROP_FORMER_CLAIM, CONFIRM_MOVE)


@workflow.defn(name=OperationName.CONFIRM_RESIZE.value)
class ConfirmResize(Operation[ConfirmResizeRequest]):
    """See the table above."""

    operation, afterwards = OperationName.CONFIRM_RESIZE, VmState.ACTIVE

    @workflow.init
    def __init__(self, request: ConfirmResizeRequest) -> None:
        super().__init__(request, [step.name for step in STEPS])

    @workflow.run
    async def run(self, request: ConfirmResizeRequest) -> Server:
        """Confirm."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """An error is what a revert that was cut short by force leaves: if its source never returns, this ends it."""
        return (VmState.RESIZED, VmState.ERROR)

    async def carry_out(self) -> Server:
        target = self.target = await self.unbroken(BEGIN, self.begin(self.allowed(), TaskState.RESIZE_CONFIRMING))
        if target.move is None:
            raise no_move(target)
        host, source = target.hosts[0], target.move.source
        self.accept(target.limits, f"confirm {target.name} on {host.name}")
        self.state.host = host.name
        # It would be the last one, were it not there.
        power_state = await self.step(EXPECT_GUEST, ExpectGuest(server_id=target.server_id), on=host)
        return await to_the_end(self.keep(target, power_state, elsewhere=source.id != host.id))

    async def keep(self, target: Target, power_state: PowerState, *, elsewhere: bool) -> Server:
        """Remove the former one."""
        assert target.move is not None
        source, ref = target.move.source, ServerRef(server_id=target.server_id, run_id=self.run_id)
        await self.ensure(DROP_FORMER_GUEST, ref, on=source)
        if elsewhere:
            ports = PortIds(server_id=target.server_id, port_ids=target.port_ids)
            await self.ensure(UNBIND_PORTS, ports, on=source)
        await self.ensure(DROP_FORMER_CLAIM, ref, on=source)
        off = power_state is PowerState.SHUTDOWN
        call = EndMove(
            **dict(ref),
            vm_state=VmState.STOPPED if off else VmState.ACTIVE,
            power_state=power_state,
            events=self.event_log(CONFIRM_MOVE.name),
        )
        return await self.must(CONFIRM_MOVE, call)

    async def give_up(self, error: HostlerError) -> None:
        await self.settle(self.target.former)
