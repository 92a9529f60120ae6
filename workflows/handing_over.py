"""Where a guest is that was being sent from one host to another: it runs on one of them, or on none, never on both.

A guest is sent so that it stands still on its new host until its former one has given it up. So:

| the former host has | the new host has | it is |
|---|---|---|
| it | anything | here: what the new one has never ran, and goes |
| handed it over, or nothing of it | all of it | there, and is let run; one that is off ended there, one that cannot run stands still |
| handed it over, or nothing of it | nothing of it | off; what the former host has can be started again |
| it, off | it, and it runs | there |
| it, off | else | off: it may have gone on here after it was sent, so that what the new one has is older |
| no answer | it, and it runs | there |
| no answer | nothing of it | here |
| no answer | it, standing still or off | unknown, until the former host answers; there, if that is declared down: it boots anew, as its memory may be older than its volumes, or stays off |
| any answer | no answer | unknown, until the new one answers or is declared down: then there, if nothing is here, else off |
| no answer | no answer | unknown; here, once both are declared down |
"""  # noqa: E501 - a table

from collections.abc import Collection
from datetime import timedelta
from enum import Enum, auto
from typing import Any, TypeVar

from temporalio import workflow

from activities.interfaces.hosts import Hosts
from activities.interfaces.live_migrations import FinishLiveMigration, LiveMigrations
from activities.interfaces.migrating import LookForArrival, Migrating, TakeOver
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.guests import Arrival, Whereabouts
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from workflows.failures import Verdict
from workflows.operation import Operation
from workflows.steps import StepDefinition
from workflows.unwinding import pause

Said = TypeVar("Said")
STANDS_STILL, BOTH_SILENT = "live-migrate-stands-still", "live-migrate-both-silent"
KEEPS_WHAT_CAME = "live-migrate-keeps-what-came"
LONG_CALL = timedelta(minutes=2)
TRIES = 5
"""A host that could not let a guest run so often never will: that stands still there, until it is rebooted hard."""

DECLARED_DOWN = StepDefinition[HostRef, bool](Hosts.declared_down)
END_MIGRATION = StepDefinition[ServerRef, Whereabouts](Migrating.end_migration, timeout=LONG_CALL)
LOOK_FOR_ARRIVAL = StepDefinition[LookForArrival, Arrival](Migrating.look_for_arrival, timeout=LONG_CALL)
TAKE_OVER = StepDefinition[TakeOver, PowerState](Migrating.take_over, timeout=LONG_CALL)
KEEP = StepDefinition[ServerRef, None](Migrating.keep_guest)
FINISH_LIVE_MIGRATION = StepDefinition[FinishLiveMigration, Server](LiveMigrations.finish_live_migration)


class Place(Enum):
    """Where it is."""

    HERE = auto()
    THERE = auto()
    OFF = auto()


def decide(said: Whereabouts | None, seen: Arrival | None, down: Collection[str] = ()) -> Place | None:
    """The table above. None: no answer, or unknown. `down`: which of "source" and "target" have been declared down."""
    if seen is None and "target" in down:
        if said is Whereabouts.GONE:
            return Place.THERE
        if said is None and "source" not in down:  # which may say that it is gone
            return None
        seen = Arrival.NOTHING
    match said, seen:
        case Whereabouts.HERE, _:
            return Place.HERE
        case _, Arrival.RUNS:
            return Place.THERE
        case None, Arrival.NOTHING:
            return Place.HERE
        case None, _:
            return Place.THERE if "source" in down and seen is not None else None
        case _, None:
            return None
        case Whereabouts.OFF, _:
            return Place.OFF
        case _, Arrival.NOTHING:
            return Place.OFF
    return Place.THERE


async def find(
    operation: Operation[Any], ref: ServerRef, *, source: HostRef, target: HostRef, handed_over: bool = False
) -> tuple[Place, PowerState]:
    """End what is still under way, and see that the guest runs where it belongs; waits while nobody can say.

    The place, and the power state that it has there. HERE also once a delete waits: it removes all there is.
    `handed_over`: the source need not say that it has given the guest up.
    """
    pauses, refused, told = 0, 0, len(operation.state.steps)
    while not operation.taken_over():
        del operation.state.steps[told:]  # the answers of the look before
        end = await operation.ask(END_MIGRATION, ref, on=source)
        said = _answer(end) or (Whereabouts.GONE if handed_over else None)
        # Where nobody can tell the source to end it, the target must: "nothing of it is here" has to stay true.
        call = LookForArrival(**dict(ref), refuse=said is None)
        look = await operation.ask(LOOK_FOR_ARRIVAL, call, on=target)
        seen = _answer(look)
        place = decide(said, seen)
        if place is None:
            down = await _down(operation, source, target)
            place = decide(said, seen, down)
            if said is None and seen is None and down == ["target"] and not workflow.patched(BOTH_SILENT):
                place = Place.HERE  # as former releases had it
            if said is None and seen is not None and place is Place.THERE and not workflow.patched(KEEPS_WHAT_CAME):
                place = Place.HERE  # so were they
        if place is Place.THERE:
            taking = TakeOver(**dict(ref), anew=said is None and seen is Arrival.COME)
            taken = await _take_over(operation, taking, target, seen)
            if not isinstance(taken, Verdict):
                return place, taken
            refused += seen is Arrival.COME and taken.answered and not taken.error.retryable
            if refused >= TRIES and said is not None and workflow.patched(STANDS_STILL):
                return place, PowerState.PAUSED
        elif place is not None:
            if said is not Whereabouts.HERE:
                await operation.ensure(KEEP, ref, on=source)
            return place, PowerState.RUNNING if place is Place.HERE else PowerState.SHUTDOWN
        await workflow.sleep(pause(pauses), summary="nobody can say where it is")
        pauses += 1
    return Place.HERE, PowerState.RUNNING


async def _take_over(
    operation: Operation[Any], call: TakeOver, target: HostRef, seen: Arrival | None
) -> PowerState | Verdict:
    """Let it run there, where it stands still; or why that host does not do it now."""
    if seen in (None, Arrival.OFF):
        return PowerState.SHUTDOWN if seen else PowerState.NOSTATE
    return await operation.ask(TAKE_OVER, call, on=target)


async def _down(operation: Operation[Any], source: HostRef, target: HostRef) -> list[str]:
    hosts = {"source": source, "target": target}
    return [role for role, host in hosts.items() if await operation.must(DECLARED_DOWN, host)]


def _answer(said: Said | Verdict) -> Said | None:
    return None if isinstance(said, Verdict) else said
