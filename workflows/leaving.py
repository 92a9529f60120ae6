"""What a move does on the host that its server leaves: once, however many hosts it then tries.

Its steps are in the table of workflows/source.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from temporalio.exceptions import ActivityError

from activities.interfaces.guests import OfferDisks, SetAsideClaim, StopGuest
from activities.interfaces.moves import MovePlan
from activities.interfaces.servers import HostRef, SetTaskState
from hostler.contract.errors import Unavailable
from hostler.contract.servers import Choice, MoveRequest
from hostler.contract.states import TaskState, VmState
from workflows.building import SET_TASK_STATE
from workflows.failures import Verdict, judge
from workflows.placing import PlacedOperation
from workflows.source import (
    OFFER_DISKS,
    OFFERS,
    RECEIVE_DISKS,
    SET_ASIDE_CLAIM,
    SET_ASIDE_GUEST,
    STOP,
    blaming,
    keeping_what_is_there,
)


class LeavingOperation(PlacedOperation[MoveRequest]):
    """It has its `plan` and `source` once it has the server."""

    plan: MovePlan
    source: HostRef

    def __init__(self, request: MoveRequest, planned: Sequence[str]) -> None:
        super().__init__(request, planned)
        self.claim_is_aside = self.guest_is_aside = False
        self.offered = self.offers_again = self.at_source = False

    @contextmanager
    def on_source(self) -> Iterator[None]:
        """A failure there is the source's, also where the target is the same host."""
        self.at_source = True
        try:
            with blaming(self.source):
                yield
        finally:
            self.at_source = False

    async def set_claim_aside(self) -> None:
        """So that the server may have another claim beside it, on the same host too."""
        if not self.claim_is_aside:
            call = SetAsideClaim(**dict(self.ref), leaves=self.source.id in self.plan.excluded)
            with self.on_source():
                await self.step(SET_ASIDE_CLAIM, call, on=self.source, saga=self.whole, undo=self.ref)
            self.claim_is_aside = True

    async def set_guest_aside(self) -> None:
        """Power the guest off, and see that nothing starts it."""
        if self.guest_is_aside:
            return
        await self.say(TaskState.RESIZE_MIGRATING)
        with self.on_source():
            if self.plan.former is VmState.ACTIVE:
                stop = StopGuest(server_id=self.call.server_id, timeout=self.limits.stop)
                await self.step(STOP, stop, on=self.source, saga=self.whole, undo=self.ref)
            with keeping_what_is_there(self.whole, self.source):
                await self.step(SET_ASIDE_GUEST, self.ref, on=self.source, saga=self.whole, undo=self.ref)
        self.guest_is_aside = True

    async def transfer(self, host: HostRef) -> None:
        """Copy the disks. Where what serves them has died, it is started again, and the copy goes on."""
        call = OfferDisks(**dict(self.ref), flatten=self.plan.plan.image is None)
        for left in reversed(range(OFFERS)):
            saga = None if self.offered else self.whole
            self.offered = True
            with self.on_source():
                offer = await self.step(OFFER_DISKS, call, on=self.source, saga=saga, undo=self.ref)
            self.offers_again = left > 0
            try:
                return await self.step(RECEIVE_DISKS, offer, on=host, saga=self.attempt, undo=self.ref)
            except ActivityError as failure:
                if not left or not isinstance(judge(failure, host=host.name).error, Unavailable):
                    raise
            finally:
                self.offers_again = False

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        if self.offers_again and isinstance(verdict.error, Unavailable):
            return ()
        if self.at_source:  # which another target would not mend
            return (Choice.RETRY, Choice.GIVE_UP)
        return super().choices(verdict, on)

    async def say(self, task_state: TaskState) -> None:
        """Show in the server's row how far it is."""
        call = SetTaskState(server_id=self.call.server_id, run_id=self.run_id, task_state=task_state)
        await self.step(SET_TASK_STATE, call)
