"""`hostler server`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hostler.cli.boot_options import (
    block_device,
    boot_volume,
    ephemeral,
    network,
    new_boot_volume,
    swap,
    with_ids,
)
from hostler.cli.completion import names
from hostler.cli.exits import exit_code
from hostler.cli.failures import show_detail
from hostler.cli.output import Format, FormatOption, column_option, note, printable, show_list
from hostler.cli.pairs import properties
from hostler.cli.server_views import COLUMNS, EVENT_COLUMNS, FIELDS, LONG_COLUMNS, show_server
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError, InvalidRequest
from hostler.contract.servers import Server

app = typer.Typer(no_args_is_help=True, help="Servers: create, watch, start, stop, reboot, delete.")

ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="Name or UUID.", autocompletion=names("servers"))]
ServersArgument = Annotated[
    list[str], typer.Argument(metavar="SERVER...", help="Names or UUIDs.", autocompletion=names("servers"))
]
PickedFields = Annotated[list[str] | None, column_option(FIELDS)]
PickedEvents = Annotated[list[str] | None, column_option(EVENT_COLUMNS)]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it has ended.")]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    flavor: Annotated[str, typer.Option(help="Name or UUID.", autocompletion=names("flavors"))],
    image: Annotated[str | None, typer.Option(help="Name or UUID.", autocompletion=names("images"))] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            "--nic",
            metavar="NET",
            help="Name or UUID, or net=NET,ip=ADDRESS; repeat for more interfaces.",
            autocompletion=names("networks"),
        ),
    ] = None,
    volume: Annotated[str | None, typer.Option(help="Boot from this volume.", autocompletion=names("volumes"))] = None,
    boot_from_volume: Annotated[
        int | None, typer.Option(metavar="GIB", help="Boot from a new volume of this size, made from the image.")
    ] = None,
    block_devices: Annotated[
        list[str] | None,
        typer.Option(
            "--block-device",
            metavar="KEY=VALUE,...",
            help="uuid, source_type (volume, image, blank), destination_type (volume, local), volume_size in GiB, "
            "boot_index, guest_format (swap), delete_on_termination; repeat for more.",
        ),
    ] = None,
    ephemerals: Annotated[
        list[str] | None, typer.Option("--ephemeral", metavar="[size=]GIB", help="A blank local disk; repeatable.")
    ] = None,
    swap_mib: Annotated[int | None, typer.Option("--swap", metavar="MIB", help="A swap disk.")] = None,
    key_name: Annotated[str | None, typer.Option(help="Key pair.", autocompletion=names("keypairs"))] = None,
    user_data: Annotated[
        Path | None, typer.Option(help="File for the guest, for cloud-init.", exists=True, dir_okay=False)
    ] = None,
    properties_: Annotated[
        list[str] | None, typer.Option("--property", metavar="KEY=VALUE", help="Metadata; repeat for more.")
    ] = None,
    availability_zone: Annotated[str | None, typer.Option(help="Only hosts of this zone.")] = None,
    host: Annotated[str | None, typer.Option(help="Only this host.", autocompletion=names("hosts"))] = None,
    server_id: Annotated[
        str | None, typer.Option("--id", metavar="UUID", help="Its UUID; creating it twice creates it once.")
    ] = None,
    config_drive: Annotated[bool, typer.Option(help="Give the guest its metadata on a config drive.")] = True,
    max_attempts: Annotated[int | None, typer.Option(help="On how many hosts to try, at most.")] = None,
    wait: WaitOption = False,
    format: FormatOption = Format.TABLE,
    columns: PickedFields = None,
) -> None:
    """Build a server."""
    devices = [block_device(value) for value in block_devices or []]
    devices += [ephemeral(value) for value in ephemerals or []]
    if swap_mib is not None:
        devices.append(swap(swap_mib))
    if volume is not None:
        devices.insert(0, boot_volume(volume))
    root_image = image
    if boot_from_volume is not None:
        if image is None:
            raise InvalidRequest("--boot-from-volume needs --image, whose content the volume gets", field="image")
        devices.insert(0, new_boot_volume(image, boot_from_volume))
        root_image = None

    async def boot(client: Client) -> Operation:
        return await client.servers.boot(
            name,
            flavor=flavor,
            image=root_image,
            networks=[network(value) for value in networks or []],
            block_devices=[await with_ids(client, device) for device in devices],
            key_name=key_name,
            user_data=user_data.read_bytes() if user_data else None,
            metadata=properties("--property", properties_ or []),
            availability_zone=availability_zone,
            host=host,
            config_drive=config_drive,
            max_attempts=max_attempts,
            server_id=server_id,
        )

    async def work(client: Client) -> Server | HostlerError:
        operation = await boot(client)
        if wait:
            return (await watch({name: operation}))[name]
        return await client.servers.show(operation.server_id)

    built = session(ctx).run(work)
    if isinstance(built, HostlerError):
        _fail([], [built])
    show_server(built, format, columns)


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
    """Show a server, and the fault of one in ERROR."""
    show_server(session(ctx).run(lambda client: client.servers.show(server)), format, columns)


@app.command()
def start(ctx: typer.Context, servers: ServersArgument, wait: WaitOption = False) -> None:
    """Power servers on."""
    _operate(ctx, servers, wait, lambda client: client.servers.start)


@app.command()
def stop(ctx: typer.Context, servers: ServersArgument, wait: WaitOption = False) -> None:
    """Power servers off; their guests are asked first."""
    _operate(ctx, servers, wait, lambda client: client.servers.stop)


@app.command()
def reboot(
    ctx: typer.Context,
    servers: ServersArgument,
    hard: Annotated[bool, typer.Option("--hard/--soft", help="Do not ask the guests.")] = False,
    wait: WaitOption = False,
) -> None:
    """Reboot servers; their guests are asked first, unless --hard."""
    _operate(ctx, servers, wait, lambda client: lambda server: client.servers.reboot(server, hard=hard))


@app.command()
def delete(ctx: typer.Context, servers: ServersArgument, wait: WaitOption = False) -> None:
    """Delete servers, also in the middle of their boot."""
    _operate(ctx, servers, wait, lambda client: client.servers.delete)


@app.command()
def follow(ctx: typer.Context, server: ServerArgument) -> None:
    """Watch the operation that runs on a server, or see how the last one went."""

    async def work(client: Client) -> Server | HostlerError:
        return (await watch({server: await client.servers.operation(server)}))[server]

    outcome = session(ctx).run(work)
    if isinstance(outcome, HostlerError):
        _fail([], [outcome])


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
    choose: Callable[[Client], Callable[[str], Awaitable[Operation]]],
) -> None:
    """Begin one operation on each server, all at once, and report on each."""

    async def begin(act: Callable[[str], Awaitable[Operation]], server: str) -> Operation | HostlerError:
        try:
            return await act(server)
        except HostlerError as error:
            return error

    async def work(client: Client) -> tuple[list[HostlerError], list[HostlerError]]:
        wanted = list(dict.fromkeys(servers))
        answers = dict(zip(wanted, await asyncio.gather(*(begin(choose(client), s) for s in wanted)), strict=True))
        refused = [answer for answer in answers.values() if isinstance(answer, HostlerError)]
        begun = {server: answer for server, answer in answers.items() if isinstance(answer, Operation)}
        if wait and begun:
            return refused, [end for end in (await watch(begun)).values() if isinstance(end, HostlerError)]
        for server, operation in begun.items():
            note(f"{operation.operation} of {server} accepted; watch it with: hostler server follow {server}")
        return refused, []

    refused, failed = session(ctx).run(work)
    if refused or failed:
        _fail(refused, failed)


def _fail(refused: Sequence[HostlerError], failed: Sequence[HostlerError]) -> NoReturn:
    """Show what was refused and what failed; the first of them gives the exit code."""
    for error in (*refused, *failed):
        show_detail(error.detail)
    if refused:
        raise typer.Exit(exit_code(refused[0].detail.code))
    raise typer.Exit(exit_code(failed[0].detail.code, accepted=True))
