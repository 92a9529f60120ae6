"""`hostler host failures`."""

from typing import Annotated

import typer

from hostler.cli.exits import Exit
from hostler.cli.output import Columns, Format, FormatOption, cell, column_option, note, show_list, show_one
from hostler.cli.session import session
from hostler.contract.host_work import RUNBOOK, HostFailures, WatchedHost

COLUMNS: Columns[WatchedHost] = {
    "Name": lambda h: h.name,
    "State": lambda h: h.state,
    "Since": lambda h: h.since,
    "Servers": lambda h: h.servers,
    "To evacuate": lambda h: h.wanted,
    "Doing": lambda h: h.doing,
}
FIELDS: Columns[WatchedHost] = {"ID": lambda h: h.id, **COLUMNS}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


def failures(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """List the hosts that are missed, and what is done about each by itself.

    Exits with 10 when nothing more is done before a person has seen to it: there is an alarm, or a host is stuck; with
    7 when the watch itself has not looked for long; with 3 when nobody watches.
    """
    found = session(ctx).run(lambda client: client.hosts.failures())
    if format is Format.JSON and not columns:
        show_one(found, {}, format, None)
    else:
        show_list(found.hosts, FIELDS if columns else COLUMNS, format, columns)
    _tell(found)
    raise typer.Exit(_exit(found))


def _exit(found: HostFailures) -> Exit:
    if found.calls:
        return Exit.ALARM
    return Exit.UNAVAILABLE if found.late else Exit.DONE


def _tell(found: HostFailures) -> None:
    if found.alarm:
        note(f"alarm since {cell(found.alarm_since)}: {found.alarm}")
    if found.calls:
        note(f"what to do: the runbook {RUNBOOK} (deploy/runbooks/{RUNBOOK}.md)")
    if found.late:
        note(
            "the next look is overdue, and nothing is evacuated by itself before it: see whether the control workers' "
            "logs say why"
        )
    looked = f"looked at {cell(found.looked_at)}" if found.looked_at else "has not looked yet"
    note(f"the watch {looked}: {len(found.hosts)} hosts are missed, or were of late")
