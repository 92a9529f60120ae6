"""What resize and cold migrate share: the server's guest is built anew on a host, from the disks that it has.

The former guest, claim and allocation stay, set aside on the source, until the move is confirmed or reverted.
"""

from abc import abstractmethod
from collections.abc import Sequence

from activities.interfaces.guests import Guests
from activities.interfaces.moves import BeginMove, FinishMove, MovePlan, Moves
from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import HostRef
from hostler.contract.errors import HostlerError, OperationFailed, Preempted
from hostler.contract.guests import GuestSpec, VolumeConnection
from hostler.contract.servers import MoveRequest, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE, connected
from workflows.building import (
    BIND_PORTS,
    CLAIM,
    RESUME,
    SCHEDULE,
    SPAWN,
    bind,
    claim_of,
    connections,
    schedule_of,
)
from workflows.concurrency import to_the_end
from workflows.later import ask_later
from workflows.leaving import LeavingOperation
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.source import (
    OFFER_DISKS,
    RECEIVE_DISKS,
    SET_ASIDE_CLAIM,
    SET_ASIDE_GUEST,
    STOP,
    WITHDRAW_OFFER,
)
from workflows.steps import StepDefinition

BEGIN_MOVE = StepDefinition[BeginMove, MovePlan](Moves.begin_move)
FINISH_MOVE = StepDefinition[FinishMove, Server](Moves.finish_move)
PLANNED = (
    *(BEGIN_MOVE.name, SCHEDULE.name, SET_ASIDE_CLAIM.name, CLAIM.name, FETCH_IMAGE.name, STOP.name),
    *(SET_ASIDE_GUEST.name, OFFER_DISKS.name, RECEIVE_DISKS.name, BIND_PORTS.name, SPAWN.name, WAIT_VIF_PLUGGED),
    *(RESUME.name, WITHDRAW_OFFER.name, FINISH_MOVE.name),
)


class MoveOperation(LeavingOperation):
    """See the table of either. What is done on the source, once, is undone last."""

    afterwards = VmState.RESIZED
    may_be_refused_late = True

    def __init__(self, request: MoveRequest) -> None:
        super().__init__(request, PLANNED)
        self.connections: dict[str, VolumeConnection] | None = None

    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible."""
        return (VmState.ACTIVE, VmState.STOPPED)

    @abstractmethod
    def begin_move(self) -> BeginMove:
        """What is asked of the server's row."""

    async def carry_out(self) -> Server:
        self.plan = await self.unbroken(BEGIN_MOVE, self.begin_move())
        self.source = self.plan.hosts[0]
        self.accept(self.plan.limits, f"{self.operation} {self.plan.name} from {self.source.name}")
        host, power_state = await self.on_some_host(self.build)
        return await to_the_end(self.finish(host, power_state))

    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        excluded = [*self.plan.excluded, *tried]
        return schedule_of(
            self.plan.plan,
            self.run_id,
            zone=self.plan.plan.guest.availability_zone,
            host=host or self.plan.host,
            alternates=alternates,
            excluded=excluded,
        )

    async def build(self, host: HostRef) -> PowerState:
        """Everything on one host, until the guest is there with the power that it had."""
        plan = self.plan.plan
        await self.set_claim_aside()
        await self.step(CLAIM, claim_of(plan), on=host, saga=self.attempt, undo=self.ref)
        if plan.image is not None:
            await self.step(FETCH_IMAGE, plan.image, on=host)
        await self.set_guest_aside()
        await self.transfer(host)
        if host.id != self.source.id:  # else they are bound, and stay so whatever happens
            await bind(self, plan.guest.ports, host, self.attempt)
        await self.say(TaskState.RESIZE_FINISH)
        await self.step(SPAWN, await self.guest(), on=host, saga=self.attempt, undo=self.ref)
        return await self.let_run(plan.guest.ports, host, stays_off=self.plan.former is not VmState.ACTIVE)

    async def guest(self) -> GuestSpec:
        """The guest, its volumes connected."""
        plan = self.plan.plan
        if self.connections is None:
            self.connections = await connections(self, plan)
        return plan.guest.model_copy(update={"disks": connected(plan.guest.disks, self.connections)})

    # The end.

    async def finish(self, host: HostRef, power_state: PowerState) -> Server:
        """From here on the guest is the new one: the point of no return."""
        await self.ensure(WITHDRAW_OFFER, self.ref, on=self.source)
        if self.plan.confirm_after:
            await ask_later(
                OperationName.CONFIRM_RESIZE,
                self.call.server_id,
                project=self.call.project,
                subject=self.run_id,
                after=self.plan.confirm_after,
            )
        call = FinishMove(
            **dict(self.ref),
            host_id=host.id,
            power_state=power_state,
            disks=self.plan.plan.guest.disks,
            confirm_after=self.plan.confirm_after,
            events=self.event_log(FINISH_MOVE.name),
        )
        return await self.must(FINISH_MOVE, call)

    def uncertain(self, host: HostRef) -> HostlerError:
        return OperationFailed(
            f"the guest may be running on host {host.name}, which does not answer: on {self.source.name} it stays off",
            remedy=f"when {host.name} is back and owes nothing, or is surely dead: hostler server reboot --hard "
            f"{self.call.server_id}",
        )

    async def give_up(self, error: HostlerError) -> None:
        """The former guest is brought back, and started only if no other one of the server can be running."""
        await self.undo_attempt()
        if self.runs_unseen:
            self.whole.undos = [undo for undo in self.whole.undos if undo.activity is not Guests.start_guest]
        await self.unwind(self.whole)
        self.tell_all(error)
        if self.runs_unseen and not isinstance(error, Preempted):
            await self.settle(VmState.ERROR, power_state=PowerState.SHUTDOWN, error=error)
        else:
            await self.settle(self.plan.former)
