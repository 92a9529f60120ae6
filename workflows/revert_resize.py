"""Revert a resize or migration: the server is where and what it was; what happened to it since is lost.

| step | where | undo |
|---|---|---|
| begin | control | settle |
| expect_guest | source: its former guest is there | - |
| expect_guest, stop_guest if it runs | the server's host, unless that is declared down | start_guest |
| destroy_guest, unbind_ports, drop_claim | the server's host, unless that is the source; owed when it falls silent | - : from here on it only goes forward |
| bring_back_claim, bring_back_guest | source, until it does; owed when it is declared down | - |
| start_guest; expect_guest, where it failed | source, if it ran before; some times, until it runs | - |
| revert_move | control: allocation, host, flavor and disks, by one change | - |

A move that was cut short by force is taken back in the same way. A live migration that was is ended where its guest is:
see workflows/handing_over.py.
"""  # noqa: E501 - a table

import asyncio
from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.guests import Claims, ExpectGuest, StopGuest
from activities.interfaces.live_migrations import FinishLiveMigration
from activities.interfaces.moves import EndMove, Moves
from activities.interfaces.servers import HostRef, OpenMove, ServerRef, Target
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Choice, MigrationKind, OperationName, RevertResizeRequest, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.failures import Verdict
from workflows.handing_over import DECLARED_DOWN, FINISH_LIVE_MIGRATION, Place, find
from workflows.operation import BEGIN, Operation
from workflows.power import POWER_ON
from workflows.refusals import no_move
from workflows.removing import DESTROY, remove_from
from workflows.source import BRING_BACK_GUEST, EXPECT_GUEST, STOP
from workflows.steps import Saga, StepDefinition
from workflows.unwinding import COMES_FIRST, SHORTEST_PAUSE, pause

BRING_BACK_CLAIM = StepDefinition[ServerRef, None](Claims.bring_back_claim)
REVERT_MOVE = StepDefinition[EndMove, Server](Moves.revert_move)
STARTS = 3
"""How often the former guest is started, beyond what Temporal tries by itself."""
STEPS = (BEGIN, EXPECT_GUEST, STOP, DESTROY, BRING_BACK_CLAIM, BRING_BACK_GUEST, POWER_ON, REVERT_MOVE)


@workflow.defn(name=OperationName.REVERT_RESIZE.value)
class RevertResize(Operation[RevertResizeRequest]):
    """See the table above."""

    operation, afterwards = OperationName.REVERT_RESIZE, VmState.ACTIVE

    @workflow.init
    def __init__(self, request: RevertResizeRequest) -> None:
        super().__init__(request, [step.name for step in STEPS])
        self.saga = Saga()
        self.ref = ServerRef(server_id=request.server_id, run_id=self.run_id)
        self.going_back = False

    @workflow.run
    async def run(self, request: RevertResizeRequest) -> Server:
        """Revert."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """An error is what a move that was cut short by force leaves."""
        return (VmState.RESIZED, VmState.ERROR)

    async def carry_out(self) -> Server:
        target = self.target = await self.unbroken(BEGIN, self.begin(self.allowed(), TaskState.RESIZE_REVERTING))
        if target.move is None:
            raise no_move(target)
        self.accept(target.limits, f"revert {target.name} to {target.move.source.name}")
        source = target.move.source
        self.state.host = source.name
        if target.move.kind is MigrationKind.LIVE_MIGRATION:
            return await to_the_end(self.end_live_migration(target, source))
        # Where both were on one host, what is in its place is the new one.
        # But after a revert that was cut short, and is in error, the former one may be there already.
        apart = not target.move.finished or target.hosts[0].id != source.id or target.former is VmState.ERROR
        former = ExpectGuest(server_id=target.server_id, former=True, in_place=apart)
        await self.step(EXPECT_GUEST, former, on=source)  # or there would be none afterwards
        # A move that was cut short may have reserved on another host, and got as far as a guest there.
        others = target.hosts[:1] if target.move.finished else [h for h in target.hosts if h.id != source.id]
        for host in others:
            if host.id in target.down:  # so its guest is off; it owes the removal
                self.silent.add(host.id)
            else:
                await self.stop(host)
        return await to_the_end(self.go_back(target, target.move, others))

    async def end_live_migration(self, target: Target, source: HostRef) -> Server:
        """The server is where its guest is: on the source, or on the host that it was on its way to."""
        self.going_back = True
        for host in [host for host in target.hosts if host.id != source.id]:
            gone = target.move is not None and target.move.handed_over
            place, power_state = await find(self, self.ref, source=source, target=host, handed_over=gone)
            if place is Place.THERE:
                await remove_from(self, source, self.ref, target.port_ids)
                finish = FinishLiveMigration(
                    **dict(self.ref),
                    host_id=host.id,
                    power_state=power_state,
                    events=self.event_log(FINISH_LIVE_MIGRATION.name),
                )
                return await self.must(FINISH_LIVE_MIGRATION, finish)
            await remove_from(self, host, self.ref, target.port_ids)
        return await self.end(*await self.at_home(source))

    async def at_home(self, source: HostRef) -> tuple[VmState, PowerState]:
        """How its guest is, on the source. One of a source that is declared down can be evacuated."""
        pauses, told = 0, len(self.state.steps)
        call = ExpectGuest(server_id=self.call.server_id, may_be_gone=True)
        while isinstance(found := await self.ask(EXPECT_GUEST, call, on=source), Verdict):
            if self.taken_over():
                raise asyncio.CancelledError
            if await self.must(DECLARED_DOWN, source):
                return VmState.ACTIVE, PowerState.SHUTDOWN
            await workflow.sleep(pause(pauses), summary="the source does not answer")
            pauses += 1
            del self.state.steps[told:]
        if found is PowerState.NOSTATE:
            return VmState.ERROR, found
        return VmState.STOPPED if found is PowerState.SHUTDOWN else VmState.ACTIVE, found

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        """Past the point of no return there is nothing to decide."""
        return () if self.going_back else super().choices(verdict, on)

    async def stop(self, host: HostRef) -> None:
        """Power the guest off, where there is one: two of a server never run."""
        call = ExpectGuest(server_id=self.call.server_id, may_be_gone=True)
        if await self.step(EXPECT_GUEST, call, on=host) not in (PowerState.SHUTDOWN, PowerState.NOSTATE):
            stop = StopGuest(server_id=self.call.server_id, timeout=self.limits.stop)
            await self.step(STOP, stop, on=host, saga=self.saga, undo=self.ref)

    async def go_back(self, target: Target, move: OpenMove, others: Sequence[HostRef]) -> Server:
        """Give the new guest up, and bring the former one back."""
        self.going_back = True
        for host in others:
            if host.id != move.source.id:  # there the former one takes its place
                await remove_from(self, host, self.ref, target.port_ids)
        await self.forward(BRING_BACK_CLAIM, self.ref, on=move.source)
        await self.forward(BRING_BACK_GUEST, self.ref, on=move.source)
        vm_state, power_state = VmState.STOPPED, PowerState.SHUTDOWN
        if move.former is VmState.ACTIVE:
            vm_state, power_state = await self.start(move.source)
        return await self.end(vm_state, power_state)

    async def end(self, vm_state: VmState, power_state: PowerState) -> Server:
        """The server is on the source, and is so."""
        events = self.event_log(REVERT_MOVE.name)
        call = EndMove(**dict(self.ref), vm_state=vm_state, power_state=power_state, events=events)
        return await self.must(REVERT_MOVE, call)

    async def start(self, source: HostRef) -> tuple[VmState, PowerState]:
        """It ran before, and is to run again: there is nothing to go back to. Each failure shows in the events.

        One that does not start, or whose host says no more, is STOPPED: its disks are there. Should it run after all,
        its host will say so.
        """
        if source.id in self.owing:  # since it was declared down: it starts it too, unless that is evacuated before
            await self.owe(self.begin_record(POWER_ON.name, source), POWER_ON.activity, self.ref, source, COMES_FIRST)
            return VmState.ACTIVE, PowerState.SHUTDOWN
        off = VmState.STOPPED, PowerState.SHUTDOWN
        for tries in range(STARTS):
            try:
                return VmState.ACTIVE, await self.step(POWER_ON, self.ref, on=source, final=True)
            except ActivityError:
                # What ran under the former code went on at once.
                if not workflow.patched("revert-starts-again") or self.cannot_ask(source) is not None:
                    return off
            found = await self.ask(EXPECT_GUEST, ExpectGuest(server_id=self.call.server_id), on=source)
            if found is PowerState.RUNNING:  # what failed was the answer
                return VmState.ACTIVE, found
            silent = isinstance(found, Verdict) and not found.answered
            if silent or self.taken_over() or tries == STARTS - 1:
                return off
            await workflow.sleep(SHORTEST_PAUSE * 2**tries, summary="it is off: it is started again")
        return off

    async def give_up(self, error: HostlerError) -> None:
        """The next one must still know where a move that was cut short may have a guest."""
        if self.going_back:  # only a delete gets here, which removes all there is
            await self.settle(VmState.ERROR, error=error, keeps_others=True)
            return
        await self.unwind(self.saga)
        await self.settle(self.target.former, keeps_others=True)
