"""Shows how all servers of a host are moved, on standard error: live on a terminal, line by line elsewhere."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TypeVar

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hostler.cli.output import console, note, printable, table
from hostler.client import HostWork
from hostler.contract.host_work import HostOutcome, HostProgress, KeptVolume, MoveState, ServerMove

Outcome = TypeVar("Outcome", bound=HostOutcome)
SHOWN = (MoveState.FAILED, MoveState.SKIPPED, MoveState.MOVING, MoveState.PENDING, MoveState.MOVED)
"""What deserves attention comes first: a terminal has not room for all."""
ROWS = 30


async def watch(command: str, work: HostWork[Outcome]) -> Outcome:
    """Show it until it ends, and return what became of it."""
    try:
        with ExitStack() as stack:
            live = None
            if sys.stderr.isatty():
                live = stack.enter_context(Live(console=console(stderr=True), refresh_per_second=4))
            told: dict[str, tuple[str, str]] = {}
            async for progress in work.follow():
                if live is not None:
                    live.update(_drawn(progress))
                else:
                    _say(progress, told)
        return await work.result()
    except asyncio.CancelledError:
        note(f"it goes on; see how far it is: hostler host {command} {work.host} --status")
        raise


def title(progress: HostProgress) -> Text:
    """One line of where it stands."""
    counts = Counter(server.state for server in progress.servers)
    text = Text.assemble((printable(progress.host or progress.host_id), "bold"), f"  {printable(progress.stage)}")
    if progress.servers:
        text.append("  " + ", ".join(f"{counts[state]} {state}" for state in MoveState if counts[state]), style="dim")
    if progress.stopped:
        text.append(f"\nstopped: {printable(progress.stopped)}", style="yellow")
    return text


def servers_table(servers: Sequence[ServerMove]) -> Table:
    """The servers, those that deserve attention first."""
    ordered = sorted(servers, key=lambda server: SHOWN.index(server.state))
    rows = [[one.server_id, one.name, one.state, one.operation, one.to, one.reason or None] for one in ordered]
    return table(["ID", "Server", "State", "Operation", "To", "Because"], rows)


def show_kept(host: str, volumes: Sequence[KeptVolume]) -> None:
    """The volumes that servers use and that the host keeps, and what that means for whoever wants to switch it off."""
    if not volumes:
        return
    rows = [[one.volume_id, one.name or None, one.server_id, one.server, one.project] for one in volumes]
    console().print(table(["ID", "Volume", "Server ID", "Server", "Project"], rows))
    note(
        f"host {host} keeps {len(volumes)} volumes that servers use, and no drain moves volumes: it must stay on as "
        "long as these run. Before it goes off stop them: hostler server stop SERVER; start them when it is back"
    )


def _drawn(progress: HostProgress) -> Group:
    ordered = sorted(progress.servers, key=lambda server: SHOWN.index(server.state))
    return Group(title(progress), servers_table(ordered[:ROWS]))


def _say(progress: HostProgress, told: dict[str, tuple[str, str]]) -> None:
    """A line for its stage and for each server, where that is another than before."""
    stands = (progress.stage, progress.stopped)
    if any(stands) and told.get("") != stands:
        told[""] = stands
        note(f"{progress.host or progress.host_id}: {' - stopped: '.join(filter(None, stands))}")
    for server in progress.servers:
        now = (server.state, server.reason)
        if server.state is MoveState.PENDING or told.get(server.server_id) == now:
            continue
        told[server.server_id] = now
        words = [
            f"{server.name}: {server.state}",
            f"by {server.operation}" if server.operation else "",
            f"to {server.to}" if server.to else "",
            f"- {server.reason}" if server.reason else "",
        ]
        note(" ".join(filter(None, words)))
