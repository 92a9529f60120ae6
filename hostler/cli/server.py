"""`hostler server`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.failures import fail
from hostler.cli.output import Format, FormatOption, column_option, note, printable, show_list
from hostler.cli.server_create import OnFailureOption, create
from hostler.cli.server_views import COLUMNS, EVENT_COLUMNS, FIELDS, LONG_COLUMNS, show_server
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Server

app = typer.Typer(no_args_is_help=True, help="Servers: create, watch, start, stop, reboot, delete.")

ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="Name or UUID.", autocompletion=names("servers"))]
ServersArgument = Annotated[
    list[str], typer.Argument(metavar="SERVER...", help="Names or UUIDs.", autocompletion=names("servers"))
]
PickedFields = Annotated[list[str] | None, column_option(FIELDS)]
PickedEvents = Annotated[list[str] | None, column_option(EVENT_COLUMNS)]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it has ended.")]


app.command()(create)


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only of this status, such as ACTIVE.")] = None,
    host: Annotated[str | None, typer.Option(help="Only on this host.", autocompletion=names("hosts"))] = None,
    name: Annotated[str | None, typer.Option(help="Only of this name.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")] = False,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    long: Annotated[bool, typer.Option("--long", help="More columns.")] = False,
    format: FormatOption = Format.TABLE,
    columns: PickedFields = None,
) -> None:
    """List servers."""
    servers = session(ctx).run(
        lambda client: client.servers.list(
            status=status, host=host, name=name, deleted=deleted, all_projects=all_projects
        )
    )
    show_list(servers, FIELDS if columns else LONG_COLUMNS if long else COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, server: ServerArgument, format: FormatOption = Format.TABLE, columns: PickedFields = None
) -> None:
    """Show a server, the fault of one in ERROR, and what an operation on it that holds waits for."""
    show_server(session(ctx).run(lambda client: client.servers.show(server)), format, columns)


@app.command()
def start(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Power servers on."""
    _operate(ctx, servers, wait, lambda client, server: client.servers.start(server, on_failure=on_failure))


@app.command()
def stop(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Power servers off; their guests are asked first."""
    _operate(ctx, servers, wait, lambda client, server: client.servers.stop(server, on_failure=on_failure))


@app.command()
def reboot(
    ctx: typer.Context,
    servers: ServersArgument,
    hard: Annotated[bool, typer.Option("--hard/--soft", help="Do not ask the guests.")] = False,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Reboot servers; their guests are asked first, unless --hard."""
    _operate(ctx, servers, wait, lambda client, server: client.servers.reboot(server, hard=hard, on_failure=on_failure))


@app.command()
def delete(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Delete servers, also in the middle of their boot."""
    _operate(ctx, servers, wait, lambda client, server: client.servers.delete(server, on_failure=on_failure))


@app.command()
def follow(ctx: typer.Context, server: ServerArgument) -> None:
    """Watch the operation that runs on a server, or see how the last one went."""

    async def work(client: Client) -> Server | HostlerError:
        return (await watch({server: await client.servers.operation(server)}))[server]

    outcome = session(ctx).run(work)
    if isinstance(outcome, HostlerError):
        fail([], [outcome])


@app.command()
def events(
    ctx: typer.Context, server: ServerArgument, format: FormatOption = Format.TABLE, columns: PickedEvents = None
) -> None:
    """Show all steps of a server's operations."""
    show_list(session(ctx).run(lambda client: client.servers.events(server)), EVENT_COLUMNS, format, columns)


@app.command("console-log")
def console_log(
    ctx: typer.Context,
    server: ServerArgument,
    lines: Annotated[int | None, typer.Option(min=1, help="Only so many last lines.")] = None,
    max_bytes: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so much of its end.")] = 100_000,
) -> None:
    """Show what a server's guest wrote to its serial console."""
    log = session(ctx).run(lambda client: client.servers.console_log(server, max_bytes=max_bytes))
    if lines is not None:
        log = "".join(log.splitlines(keepends=True)[-lines:])
    # The guest is not to write escape sequences to the operator's terminal.
    sys.stdout.write(printable(log.replace("\r\n", "\n")) if sys.stdout.isatty() else log)


def _operate(
    ctx: typer.Context,
    servers: list[str],
    wait: bool,
    act: Callable[[Client, str], Awaitable[Operation]],
) -> None:
    """Begin one operation on each server, all at once, and report on each."""

    async def begin(client: Client, server: str) -> Operation | HostlerError:
        try:
            return await act(client, server)
        except HostlerError as error:
            return error

    async def work(client: Client) -> tuple[list[HostlerError], list[HostlerError]]:
        wanted = list(dict.fromkeys(servers))
        answers = dict(zip(wanted, await asyncio.gather(*(begin(client, s) for s in wanted)), strict=True))
        refused = [answer for answer in answers.values() if isinstance(answer, HostlerError)]
        begun = {server: answer for server, answer in answers.items() if isinstance(answer, Operation)}
        if wait and begun:
            return refused, [end for end in (await watch(begun)).values() if isinstance(end, HostlerError)]
        for server, operation in begun.items():
            note(f"{operation.operation} of {server} accepted; watch it with: hostler server follow {server}")
        return refused, []

    refused, failed = session(ctx).run(work)
    if refused or failed:
        fail(refused, failed)
