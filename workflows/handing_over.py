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
| handed over, off, or nothing | nothing | unknown, until somebody can say more |
"""

from datetime import timedelta
from enum import Enum, auto
from typing import Any

from temporalio import workflow

from activities.interfaces.guests import ExpectGuest, Guests
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

EXPECT_GUEST = StepDefinition[ExpectGuest, PowerState](Guests.expect_guest)
END_MIGRATION = StepDefinition[ServerRef, Whereabouts](Migrating.end_migration, timeout=LONG_CALL)
FINISH_LIVE_MIGRATION = StepDefinition[FinishLiveMigration, Server](LiveMigrations.finish_live_migration)
TAKE_OVER = StepDefinition[ServerRef, PowerState](Migrating.take_over, timeout=LONG_CALL)


class Place(Enum):
    """Where it is."""

    HERE = auto()
    THERE = auto()
    OFF = auto()


async def find(operation: Operation[Any], ref: ServerRef, *, source: HostRef, target: HostRef) -> Place:
    """End what is still under way, and see that the guest runs where it belongs; waits while nobody can say.

    HERE also once a delete waits: it removes all there is.
    """
    pauses = 0
    while not operation.taken_over():
        place = await _look(operation, ref, source, target)
        if place is not None:
            return place
        await workflow.sleep(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**pauses), summary="neither host says where it is")
        pauses += 1
    return Place.HERE


async def _look(operation: Operation[Any], ref: ServerRef, source: HostRef, target: HostRef) -> Place | None:
    where = await operation.ask(END_MIGRATION, ref, on=source)
    if where is Whereabouts.HERE:
        return Place.HERE
    if isinstance(where, Verdict):
        return await _by_target_alone(operation, ref, target, otherwise=Place.HERE)
    if where is Whereabouts.OFF:
        return await _by_target_alone(operation, ref, target, otherwise=Place.OFF)
    taken = await operation.ask(TAKE_OVER, ref, on=target)
    unheard = isinstance(taken, Verdict) and (not taken.answered or taken.reschedule)
    return None if unheard else Place.THERE


async def _by_target_alone(
    operation: Operation[Any], ref: ServerRef, target: HostRef, *, otherwise: Place
) -> Place | None:
    call = ExpectGuest(server_id=ref.server_id, may_be_gone=True)
    state = await operation.ask(EXPECT_GUEST, call, on=target)
    if isinstance(state, Verdict):
        return None
    return Place.THERE if state is PowerState.RUNNING else otherwise
