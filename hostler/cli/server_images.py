"""`hostler server snapshot`, `backup` and `rebuild`: from a server's root disk to an image, and back."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.operating import OnFailureOption, ServerArgument, ServersArgument, WaitOption, operate
from hostler.client import Client, Operation
from hostler.contract.errors import InvalidRequest

NameOption = Annotated[str, typer.Option(help="The new image's name.")]
QuiesceOption = Annotated[
    bool, typer.Option("--quiesce", help="Fail where the guest's agent cannot freeze its file systems for the moment.")
]
ImageIdOption = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="The new image's UUID; one is made if it is not given.")
]


def snapshot(
    ctx: typer.Context,
    server: ServerArgument,
    name: NameOption,
    quiesce: QuiesceOption = False,
    image_id: ImageIdOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Make an image of a server's root disk, and print its UUID; the server goes on."""

    async def act(client: Client, server: str) -> Operation:
        return await client.servers.snapshot(server, name, image_id=image_id, quiesce=quiesce, on_failure=on_failure)

    _make_image(ctx, server, wait, act)


def backup(
    ctx: typer.Context,
    server: ServerArgument,
    name: NameOption,
    backup_type: Annotated[str, typer.Option("--type", metavar="KIND", help="The kind of backup, such as daily.")],
    rotation: Annotated[
        int, typer.Option("--rotate", metavar="N", help="Keep so many of the kind, this one included; delete the rest.")
    ],
    quiesce: QuiesceOption = False,
    image_id: ImageIdOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Make a snapshot that takes the place of the server's oldest one of its kind, and print its UUID."""

    async def act(client: Client, server: str) -> Operation:
        return await client.servers.backup(
            server,
            name,
            backup_type=backup_type,
            rotation=rotation,
            image_id=image_id,
            quiesce=quiesce,
            on_failure=on_failure,
        )

    _make_image(ctx, server, wait, act)


def rebuild(
    ctx: typer.Context,
    servers: ServersArgument,
    image: Annotated[
        str | None, typer.Option(help="Name or UUID; else the one that it has.", autocompletion=names("images"))
    ] = None,
    key_name: Annotated[
        str | None, typer.Option(help="Another key pair; else the one that it has.", autocompletion=names("keypairs"))
    ] = None,
    no_key_name: Annotated[bool, typer.Option("--no-key-name", help="No key pair any more.")] = False,
    user_data: Annotated[
        Path | None,
        typer.Option(help="Another file for the guest; else what it has.", exists=True, dir_okay=False),
    ] = None,
    no_user_data: Annotated[bool, typer.Option("--no-user-data", help="No user data any more.")] = False,
    password_prompt: Annotated[
        bool,
        typer.Option(
            "--password-prompt", help="Ask for the guest's new password; without a terminal, standard input is read."
        ),
    ] = False,
    preserve_ephemeral: Annotated[
        bool, typer.Option("--preserve-ephemeral", help="Keep the ephemeral disks as they are.")
    ] = False,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Make servers' root disks anew: what is on them is lost. UUID, addresses and volumes stay."""
    _not_both("key-name", key_name is not None, no_key_name)
    _not_both("user-data", user_data is not None, no_user_data)
    content = b"" if no_user_data else user_data.read_bytes() if user_data else None
    password = _password() if password_prompt else None
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.rebuild(
            server,
            image=image,
            key_name="" if no_key_name else key_name,
            user_data=content,
            admin_password=password,
            preserve_ephemeral=preserve_ephemeral,
            on_failure=on_failure,
        ),
    )


def _make_image(
    ctx: typer.Context, server: str, wait: bool, act: Callable[[Client, str], Awaitable[Operation]]
) -> None:
    for operation in operate(ctx, [server], wait, act).values():
        typer.echo(operation.image_id)


def _password() -> str:
    """One that nobody sees: as an argument, all users of this machine could."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def _not_both(option: str, given: bool, taken_away: bool) -> None:
    if given and taken_away:
        raise InvalidRequest(
            f"--{option} and --no-{option} contradict each other",
            field=f"--{option}",
            remedy="leave out one of the two",
        )
