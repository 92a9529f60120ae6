"""What the commands that operate on servers share: their arguments and options, and how one is done on several."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import typer

from hostler.cli import migrations
from hostler.cli.completion import names
from hostler.cli.failures import fail, show_detail
from hostler.cli.output import note
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError
from hostler.contract.servers import OnFailure, Server

ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="Name or UUID.", autocompletion=names("servers"))]
ServersArgument = Annotated[
    list[str], typer.Argument(metavar="SERVER...", help="Names or UUIDs.", autocompletion=names("servers"))
]
OnFailureOption = Annotated[
    OnFailure | None,
    typer.Option(
        help="When a step cannot be done: give up, or hold for a decision; else the control worker's setting."
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it has ended.")]
MaxAttemptsOption = Annotated[int | None, typer.Option(help="On how many hosts to try, at most.")]


def operate(
    ctx: typer.Context,
    servers: list[str],
    wait: bool,
    act: Callable[[Client, str], Awaitable[Operation]],
) -> Mapping[str, Operation]:
    """Begin one operation on each server, all at once, and report on each; returns them if all went well."""

    async def begin(client: Client, server: str) -> Operation | HostlerError:
        try:
            return await act(client, server)
        except HostlerError as error:
            return error

    async def work(client: Client) -> tuple[dict[str, Operation], list[HostlerError], list[HostlerError]]:
        wanted = list(dict.fromkeys(servers))
        answers = dict(zip(wanted, await asyncio.gather(*(begin(client, s) for s in wanted)), strict=True))
        refused = [answer for answer in answers.values() if isinstance(answer, HostlerError)]
        begun = {server: answer for server, answer in answers.items() if isinstance(answer, Operation)}
        for error in refused:  # now: the others may take hours
            show_detail(error.detail)
        if wait and begun:
            ends = await watch(begun)
            for server, end in ends.items():
                if isinstance(end, Server) and end.migration is not None:
                    _tell(server, end)
            return begun, refused, [end for end in ends.values() if isinstance(end, HostlerError)]
        for server, operation in begun.items():
            note(f"{operation.operation} of {server} accepted; watch it with: hostler server follow {server}")
        return begun, refused, []

    begun, refused, failed = session(ctx).run(work)
    if refused or failed:
        fail(refused, failed, told=True)
    return begun


def _tell(name: str, server: Server) -> None:
    """What is to be done about a server that has moved."""
    if server.migration is not None and (commands := migrations.commands(server, name)):
        note("\n  ".join([f"{name}: {migrations.summary(server.migration)}. Decide:", *commands]))
