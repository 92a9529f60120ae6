"""`hostler server`."""

import sys
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.failures import fail
from hostler.cli.operating import OnFailureOption, ServerArgument, ServersArgument, WaitOption, operate
from hostler.cli.output import Format, FormatOption, column_option, printable, show_list
from hostler.cli.server_create import create
from hostler.cli.server_images import backup, rebuild, snapshot
from hostler.cli.server_moves import (
    confirm,
    evacuate,
    live_migrate,
    migrate,
    resize,
    revert,
    shelve,
    shelve_offload,
    unshelve,
)
from hostler.cli.server_properties import set_, unset
from hostler.cli.server_views import COLUMNS, EVENT_COLUMNS, FIELDS, LONG_COLUMNS, show_server
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Server

app = typer.Typer(no_args_is_help=True, help="Servers: create, watch, change, move, delete.")

PickedFields = Annotated[list[str] | None, column_option(FIELDS)]
PickedEvents = Annotated[list[str] | None, column_option(EVENT_COLUMNS)]


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
    """Show a server, the fault of one in ERROR, and what waits: a move to be confirmed, an operation that holds."""
    show_server(session(ctx).run(lambda client: client.servers.show(server)), format, columns)


app.command("set")(set_)
app.command()(unset)


@app.command()
def start(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Power servers on."""
    operate(ctx, servers, wait, lambda client, server: client.servers.start(server, on_failure=on_failure))


@app.command()
def stop(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Power servers off; their guests are asked first."""
    operate(ctx, servers, wait, lambda client, server: client.servers.stop(server, on_failure=on_failure))


@app.command()
def reboot(
    ctx: typer.Context,
    servers: ServersArgument,
    hard: Annotated[bool, typer.Option("--hard/--soft", help="Do not ask the guests.")] = False,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Reboot servers; their guests are asked first, unless --hard."""
    operate(ctx, servers, wait, lambda client, server: client.servers.reboot(server, hard=hard, on_failure=on_failure))


for command in (
    snapshot,
    backup,
    rebuild,
    shelve,
    shelve_offload,
    unshelve,
    resize,
    migrate,
    live_migrate,
    evacuate,
    confirm,
    revert,
):
    app.command()(command)


@app.command()
def delete(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Delete servers, also in the middle of their boot."""
    operate(ctx, servers, wait, lambda client, server: client.servers.delete(server, on_failure=on_failure))


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
