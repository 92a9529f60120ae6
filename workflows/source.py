"""What a move does on the host that its server leaves, and how the disks come from there.

| step | where | leaves behind | undo |
|---|---|---|---|
| set_aside_claim | source | former claim | bring_back_claim |
| stop_guest | source | a guest that is off | start_guest |
| set_aside_guest | source | former guest | bring_back_guest |
| offer_disks | source | disks served, with a key | withdraw_offer |
| receive_disks | target | disks | destroy_guest |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from temporalio.exceptions import ActivityError

from activities.interfaces.guests import Claims, ExpectGuest, Guests, OfferDisks, SetAsideClaim, StopGuest
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import Conflict, OperationFailed
from hostler.contract.guests import DisksOffer
from hostler.contract.states import PowerState
from workflows.failures import judge
from workflows.operation import Operation
from workflows.steps import Saga, StepDefinition

SET_ASIDE_CLAIM = StepDefinition[SetAsideClaim, None](Claims.set_aside_claim, undo=Claims.bring_back_claim)
STOP = StepDefinition[StopGuest, PowerState](
    Guests.stop_guest, undo=Guests.start_guest, timeout=timedelta(hours=1), heartbeat=timedelta(seconds=30)
)
PULL_THE_PLUG = StepDefinition[StopGuest, PowerState](Guests.stop_guest)
EXPECT_GUEST = StepDefinition[ExpectGuest, PowerState](Guests.expect_guest)
SET_ASIDE_GUEST = StepDefinition[ServerRef, None](Guests.set_aside_guest, undo=Guests.bring_back_guest)
BRING_BACK_GUEST = StepDefinition[ServerRef, None](Guests.bring_back_guest)
OFFER_DISKS = StepDefinition[OfferDisks, DisksOffer](
    Guests.offer_disks, undo=Guests.withdraw_offer, timeout=timedelta(hours=12), heartbeat=timedelta(seconds=60)
)
RECEIVE_DISKS = StepDefinition[DisksOffer, None](
    Guests.receive_disks, undo=Guests.destroy_guest, timeout=timedelta(hours=24), heartbeat=timedelta(seconds=60)
)
WITHDRAW_OFFER = StepDefinition[ServerRef, None](Guests.withdraw_offer)
OFFERS = 3
"""How often the source is asked to offer its disks to one host: what serves them may die in between."""


async def go_off(operation: Operation[Any], server_id: str, host: HostRef) -> PowerState:
    """A guest that was spawned for a server that is off has never run."""
    return await operation.step(PULL_THE_PLUG, StopGuest(server_id=server_id, timeout=timedelta(0)), on=host)


@contextmanager
def keeping_what_is_there(saga: Saga, host: HostRef) -> Iterator[None]:
    """Where another guest was set aside before, it is not this operation's to bring back over the one in its place."""
    try:
        yield
    except ActivityError as failure:
        if isinstance(judge(failure, host=host.name).error, Conflict):
            saga.undos = [undo for undo in saga.undos if undo.activity is not Guests.bring_back_guest]
        raise


@contextmanager
def blaming(source: HostRef) -> Iterator[None]:
    """A failure of the source says so, with what the source says to do: another target would not help."""
    try:
        yield
    except ActivityError as failure:
        reason = judge(failure, host=source.name).error.detail
        raise OperationFailed(
            f"host {source.name}, from which the server moves: {reason.message}",
            field=reason.field or "host",
            value=reason.value if reason.field else source.name,
            remedy=reason.remedy or f"see what is wrong with it: hostler host show {source.name}",
        ) from failure
