"""`hostler host drain` and `evacuate`: all servers of a host."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from hostler.cli.completion import names
from hostler.cli.exits import Exit
from hostler.cli.failures import fail
from hostler.cli.host_watching import servers_table, show_kept, title, watch
from hostler.cli.output import Columns, Format, FormatOption, console, note, show_one
from hostler.cli.session import session
from hostler.client import Client, HostWork
from hostler.contract.errors import HostlerError, InvalidRequest
from hostler.contract.host_work import (
    DrainResult,
    HostFailureResult,
    HostOutcome,
    HostProgress,
    KeptVolume,
    ServerMove,
)

Outcome = TypeVar("Outcome", DrainResult, HostFailureResult)
Moved = Annotated[str, typer.Argument(metavar="HOST", help="Name or UUID.", autocompletion=names("hosts"))]
Parallel = Annotated[int | None, typer.Option(min=1, help="So many servers at a time; else the setting decides.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Watch until it has ended. Ctrl-C ends the watching only.")
]
Status = Annotated[bool, typer.Option("--status", help="Show how far the one is that runs, or how the last one ended.")]
Cancel = Annotated[
    bool, typer.Option("--cancel", help="Stop the one that runs: operations under way undo what they did.")
]

JOINED = {
    "drain": "its options stay as they are",
    "evacuate": "it takes all servers now, and --force where the host is not fenced yet; its --parallel stays as it is",
}
"""What becomes of the options of whoever joins."""


def drain(
    ctx: typer.Context,
    host: Moved,
    parallel: Parallel = None,
    skip: Annotated[bool, typer.Option("--skip", help="Go on when a server cannot be moved, and list it.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for those who wonder later.")] = None,
    wait: Wait = False,
    status: Status = False,
    cancel: Cancel = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Keep new servers off a host, and move all that it has to others: live where they run.

    It ends at the first that cannot be moved, unless --skip; those under way come to their end. So it does when the
    host is enabled again. The host stays disabled. Exits with 6 when a server is left; with 9 when none is, and the
    host keeps volumes that servers use: it must stay on for them.
    """
    _check(status=status, cancel=cancel, other=bool(parallel or skip or reason or wait))
    if status or cancel:
        _look(ctx, host, cancel, format, lambda client: client.hosts.draining(host))
    else:
        _begin(
            *(ctx, host, "drain", wait, format),
            lambda client: client.hosts.drain(host, parallel=parallel, skip=skip, reason=reason),
        )


def evacuate(
    ctx: typer.Context,
    host: Moved,
    force: Annotated[
        bool, typer.Option("--force", help="You have seen to it that the host is off; it is not fenced.")
    ] = False,
    parallel: Parallel = None,
    wait: Wait = False,
    status: Status = False,
    cancel: Cancel = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Build all servers of a host that is off on others.

    First the fence command makes sure that it is off, unless --force says so. Exits with 6 when a server is left. One
    that runs already is joined, and takes all servers, also where it was begun for those of the policy.
    """
    _check(status=status, cancel=cancel, other=bool(force or parallel or wait))
    if status or cancel:
        _look(ctx, host, cancel, format, lambda client: client.hosts.evacuation(host))
    else:
        _begin(
            *(ctx, host, "evacuate", wait, format),
            lambda client: client.hosts.evacuate(host, parallel=parallel, force=force),
        )


def _check(*, status: bool, cancel: bool, other: bool) -> None:
    if status + cancel + other > 1:
        raise InvalidRequest(
            "--status and --cancel are about the one that runs",
            field="--status" if status else "--cancel",
            remedy="give one of them, and nothing else",
        )


def _begin(
    ctx: typer.Context,
    host: str,
    command: str,
    wait: bool,
    format: Format,
    ask: Callable[[Client], Awaitable[HostWork[Outcome]]],
) -> None:
    async def work(client: Client) -> Outcome | HostlerError | None:
        begun = await ask(client)
        if begun.joined:
            note(f"the one that runs already is joined: {begun.host}; {JOINED[command]}")
        if wait:
            try:
                return await watch(command, begun)
            except HostlerError as error:  # it was accepted, and failed
                return error
        note(f"{command} of host {begun.host} accepted; see how far it is: hostler host {command} {host} --status")
        return None

    result = session(ctx).run(work)
    if result is None:
        return
    if isinstance(result, HostlerError):
        fail([], [result])
    _show(result, format)
    raise typer.Exit(_exit(result))


def _look(
    ctx: typer.Context,
    host: str,
    cancel: bool,
    format: Format,
    find: Callable[[Client], Awaitable[HostWork[Outcome]]],
) -> None:
    async def work(client: Client) -> HostProgress | None:
        found = await find(client)
        if not cancel:
            return await found.progress()
        await found.cancel()
        note(f"host {found.host}: operations under way are asked to stop; the host stays as it is")
        return None

    progress = session(ctx).run(work)
    if progress is None:
        return
    if format is not Format.TABLE:
        fields: Columns[HostProgress] = {
            "Stage": lambda p: p.stage,
            "Stopped": lambda p: p.stopped,
            "Servers": lambda p: [f"{one.name} {one.state}" for one in p.servers],
        }
        show_one(progress, fields, format, None)
        return
    console().print(title(progress))
    console().print(servers_table(progress.servers))
    show_kept(progress.host, progress.volumes)


def _show(result: HostOutcome, format: Format) -> None:
    if result.stopped:
        note(f"stopped: {result.stopped}")
    if _says_nothing(result):
        note(
            f"a control worker of an older release does not say which volumes host {result.host} keeps: drain it again"
        )
    if format is not Format.TABLE:
        fields: Columns[HostOutcome] = {
            "Moved": lambda r: [one.name for one in r.moved],
            "Left": lambda r: [one.name for one in _left(r)],
        }
        if isinstance(result, DrainResult):
            fields = {**fields, "Volumes": lambda r: [one.volume_id for one in _kept(r)]}
        show_one(result, fields, format, None)
        return
    console().print(servers_table([*_left(result), *result.moved]))
    note(f"host {result.host}: {len(result.moved)} servers moved, {len(_left(result))} not")
    show_kept(result.host, _kept(result))


def _left(result: HostOutcome) -> list[ServerMove]:
    return [*result.failed, *result.skipped, *result.left]


def _kept(result: HostOutcome) -> list[KeptVolume]:
    return (result.volumes or []) if isinstance(result, DrainResult) else []


def _says_nothing(result: HostOutcome) -> bool:
    return isinstance(result, DrainResult) and result.volumes is None


def _exit(result: HostOutcome) -> Exit:
    if not result.complete:
        return Exit.FAILED
    return Exit.KEEPS if _kept(result) or _says_nothing(result) else Exit.DONE
