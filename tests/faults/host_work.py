"""What work on all servers of a host leaves, and says, when it ends.

It undoes nothing: each server is where it was or where it goes, and the rest is done when it is asked for again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from temporalio.client import WorkflowHandle

from hostler.client import HostWork
from hostler.client.connection import Connection
from hostler.contract.errors import HostlerError
from hostler.contract.host_work import HostOutcome, HostProgress, HostWorkAccepted
from hostler.contract.states import PowerState
from tests.faults.operations import BESIDE, SERVER
from tests.faults.world import World

OF_A_SERVER = re.compile(rf"<(?:[^<>]* of )?({SERVER}|{BESIDE})>")
RUNS = re.compile(rf'guests/<([^<>]*)>\.json: .*"{PowerState.RUNNING}"')
NOBODYS = ""
NOTHING = World({})


@dataclass
class Ending:
    """How such work ended: `complete`, when all servers are off the host; `said` is what a client is told."""

    complete: bool
    said: str
    problems: list[str] = field(default_factory=list)


async def how_it_ended(connection: Connection, run: WorkflowHandle[Any, Any], definition: Any) -> Ending:
    """What a client is told of a run that has ended, and what is wrong with that."""
    kind: type[HostOutcome] = get_type_hints(definition.run)["return"]
    run_id = (await run.describe()).run_id
    work = HostWork(connection, run.id, HostWorkAccepted(host_id="", host="", run_id=run_id), kind)
    progress = await work.progress()
    try:
        return of_outcome(await work.result())
    except HostlerError as error:
        return of_failure(error, progress)


def of_outcome(outcome: HostOutcome) -> Ending:
    """It came to its end: whatever has not left says why."""
    stay = [*outcome.skipped, *outcome.failed, *outcome.left]
    ending = Ending(
        outcome.complete, "; ".join([outcome.stopped or "done", *(f"{one.name}: {one.reason}" for one in stay)])
    )
    ending.problems += [f"nobody says why {one.name} stays" for one in stay if not (one.reason or outcome.stopped)]
    return ending


def of_failure(error: HostlerError, progress: HostProgress) -> Ending:
    """It was refused or cancelled, or it failed: whoever follows it is told so, and why, as is whoever awaits it."""
    ending = Ending(False, f"{type(error).__name__}: {error}; progress: {progress.stage}, {progress.stopped}")
    if progress.stage.startswith("refused: "):
        return ending
    if not progress.done:
        ending.problems.append("it has ended, and its progress says that it goes on")
    if not progress.stopped:
        ending.problems.append(f"its progress does not say why it has ended: {error}")
    return ending


def where_they_run(world: World, hosts: Iterable[str], complete: bool) -> list[str]:
    """The servers that run on more than one host; once it is complete, also what does not run that should."""
    found: dict[str, list[str]] = {SERVER: []}
    for host in hosts:
        for line in world.sections.get(f"<{host}>: files", []):
            if guest := RUNS.search(line):
                found.setdefault(guest[1], []).append(host)
    wrong = {
        name: where for name, where in found.items() if len(where) > 1 or (complete and (name == SERVER) != len(where))
    }
    return [f"+ {name} runs on {', '.join(where) or 'no host'}" for name, where in wrong.items()]


def half_way(world: World, former: World, ended: World | None, complete: bool, dead: Sequence[str] = ()) -> list[str]:
    """What is wrong with the world in which it ended: all of each server must be as before, or as afterwards.

    What is no server's, or on a host that is dead, may be either, line by line: that has been fenced, or not. Once the
    work is complete, all must be as afterwards.
    """
    assert ended is not None
    if complete:
        return world.differences(ended)
    here, before, after = (parts(one, dead) for one in (world, former, ended))
    found: list[str] = []
    for name in sorted((here.keys() | before.keys() | after.keys()) - {NOBODYS}):
        mine = here.get(name, NOTHING)
        ways: list[list[str]] = [mine.differences(one.get(name, NOTHING)) for one in (before, after)]
        found += sorted(ways, key=len)[0]
    lines, old, new = (set(_lines(one.get(NOBODYS, NOTHING))) for one in (here, before, after))
    return (
        found
        + [f"+ {line}" for line in sorted(lines - old - new)]
        + [f"- {line}" for line in sorted((old & new) - lines)]
    )


def parts(world: World, dead: Sequence[str]) -> dict[str, World]:
    """The world by whose it is: a server's, or nobody's."""
    found: dict[str, World] = {}
    of_the_dead = tuple(f"<{name}>: " for name in dead)
    for where, lines in world.sections.items():
        for line in lines:
            owner = None if where.startswith(of_the_dead) else OF_A_SERVER.search(line)
            part = found.setdefault(owner[1] if owner else NOBODYS, World({}))
            part.sections.setdefault(where, []).append(line)
    return found


def _lines(world: World) -> Iterator[str]:
    for where, lines in world.sections.items():
        yield from (f"{where}: {line}" for line in lines)
