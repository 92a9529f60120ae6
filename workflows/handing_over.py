"""Where a guest is that was being sent from one host to another: it runs on one of them, or on none, never on both.

A guest is sent so that it stands still on its new host until its former one has given it up. So:

| the former host says | the new host says | it is |
|---|---|---|
| here | - | here: what the new one has never ran, and goes |
| handed over | has let it run, or it ended there with its host | there |
| off | it runs | there |
| off | it does not run | off, and its disks are here: it may have gone on here after it was sent |
| nothing | it runs | there |
| nothing | it does not run | here, or ended with its host: what the new one has goes |
| handed over, off, or nothing | nothing | unknown, until one of them says more, or the new one is declared down |
"""

from datetime import timedelta
from enum import Enum, auto
from typing import Any

from temporalio import workflow

from activities.interfaces.guests import ExpectGuest, Guests
from activities.interfaces.hosts import Hosts
from activities.interfaces.live_migrations import FinishLiveMigration, LiveMigrations
from activities.interfaces.migrating import Migrating
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.guests import Whereabouts
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from workflows.failures import Verdict
from workflows.operation import Operation
from workflows.steps import StepDefinition
from workflows.unwinding import LONGEST_PAUSE, SHORTEST_PAUSE

LONG_CALL = timedelta(minutes=2)

DECLARED_DOWN = StepDefinition[HostRef, bool](Hosts.declared_down)
EXPECT_GUEST = StepDefinition[ExpectGuest, PowerState](Guests.expect_guest)
END_MIGRATION = StepDefinition[ServerRef, Whereabouts](Migrating.end_migration, timeout=LONG_CALL)
FINISH_LIVE_MIGRATION = StepDefinition[FinishLiveMigration, Server](LiveMigrations.finish_live_migration)
TAKE_OVER = StepDefinition[ServerRef, PowerState](Migrating.take_over, timeout=LONG_CALL)


class Place(Enum):
    """Where it is."""

    HERE = auto()
    THERE = auto()
    OFF = auto()


PLACE_BY_SOURCE = {None: Place.HERE, Whereabouts.OFF: Place.OFF, Whereabouts.HANDED_OVER: Place.THERE}
"""Where it is by the word of the source alone (None: it is silent), when it certainly does not run on the target."""


async def find(operation: Operation[Any], ref: ServerRef, *, source: HostRef, target: HostRef) -> Place:
    """End what is still under way, and see that the guest runs where it belongs; waits while nobody can say.

    HERE also once a delete waits: it removes all there is.
    """
    pauses, told = 0, len(operation.state.steps)
    while not operation.taken_over():
        del operation.state.steps[told:]  # the answers of the look before
        where = await operation.ask(END_MIGRATION, ref, on=source)
        if where is Whereabouts.HERE:
            return Place.HERE
        place = await _ask_target(operation, ref, target, where)
        if place is not None:
            return place
        if await operation.must(DECLARED_DOWN, target):
            return PLACE_BY_SOURCE[None if isinstance(where, Verdict) else where]
        await workflow.sleep(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**pauses), summary="neither host says where it is")
        pauses += 1
    return Place.HERE


async def _ask_target(
    operation: Operation[Any], ref: ServerRef, target: HostRef, where: Whereabouts | Verdict
) -> Place | None:
    """Where it is, by the target's word beside the source's; None when that does not say."""
    if where is Whereabouts.HANDED_OVER:
        taken = await operation.ask(TAKE_OVER, ref, on=target)
        unheard = isinstance(taken, Verdict) and (not taken.answered or taken.reschedule)
        return None if unheard else Place.THERE
    state = await operation.ask(EXPECT_GUEST, ExpectGuest(server_id=ref.server_id, may_be_gone=True), on=target)
    if isinstance(state, Verdict):
        return None
    if state is PowerState.RUNNING:
        return Place.THERE
    return PLACE_BY_SOURCE[None if isinstance(where, Verdict) else where]
