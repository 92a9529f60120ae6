"""`hostler server shelve`, `resize`, `migrate` and what comes after them."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.operating import (
    MaxAttemptsOption,
    OnFailureOption,
    ServerArgument,
    ServersArgument,
    WaitOption,
    operate,
)
from hostler.cli.pairs import duration
from hostler.contract.servers import TimeoutAction

ConfirmAfterOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="When it confirms itself: seconds or ISO 8601 (PT1H), 0 is never; else the control worker's setting.",
    ),
]
MovedServersArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SERVER...", help="Names or UUIDs.", autocompletion=names("servers", status="VERIFY_RESIZE")
    ),
]


def shelve(
    ctx: typer.Context,
    servers: ServersArgument,
    offload_after: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long they keep their hosts: seconds or ISO 8601 (PT1H), 0 is not at all, -1 for good; "
            "else the control worker's setting.",
        ),
    ] = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Power servers off and keep their root disks as images; then their hosts are free for others."""
    keeps = duration("--offload-after", offload_after)
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.shelve(server, offload_after=keeps, on_failure=on_failure),
    )


def shelve_offload(
    ctx: typer.Context, servers: ServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Take shelved servers off the hosts that they still keep."""
    operate(ctx, servers, wait, lambda client, server: client.servers.shelve_offload(server, on_failure=on_failure))


def unshelve(
    ctx: typer.Context,
    servers: ServersArgument,
    availability_zone: Annotated[
        str | None, typer.Option(help="Only hosts of this zone.", autocompletion=names("hosts", "zone"))
    ] = None,
    host: Annotated[str | None, typer.Option(help="Only this host.", autocompletion=names("hosts"))] = None,
    max_attempts: MaxAttemptsOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Bring shelved servers back."""
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.unshelve(
            server, availability_zone=availability_zone, host=host, max_attempts=max_attempts, on_failure=on_failure
        ),
    )


def resize(
    ctx: typer.Context,
    server: ServerArgument,
    flavor: Annotated[str, typer.Option(help="Name or UUID.", autocompletion=names("flavors"))],
    max_attempts: MaxAttemptsOption = None,
    confirm_after: ConfirmAfterOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Give a server another flavor; then `confirm` or `revert` it."""
    confirms = duration("--confirm-after", confirm_after)
    operate(
        ctx,
        [server],
        wait,
        lambda client, server: client.servers.resize(
            server, flavor, max_attempts=max_attempts, confirm_after=confirms, on_failure=on_failure
        ),
    )


def migrate(
    ctx: typer.Context,
    servers: ServersArgument,
    host: Annotated[
        str | None, typer.Option(help="To this host; else the scheduler chooses.", autocompletion=names("hosts"))
    ] = None,
    max_attempts: MaxAttemptsOption = None,
    confirm_after: ConfirmAfterOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Move servers, powered off meanwhile, to other hosts; then `confirm` or `revert` them."""
    confirms = duration("--confirm-after", confirm_after)
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.migrate(
            server, host=host, max_attempts=max_attempts, confirm_after=confirms, on_failure=on_failure
        ),
    )


def live_migrate(
    ctx: typer.Context,
    servers: ServersArgument,
    host: Annotated[
        str | None, typer.Option(help="To this host; else the scheduler chooses.", autocompletion=names("hosts"))
    ] = None,
    completion_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long a guest may take to get across: seconds or ISO 8601 (PT1H), 0 is no limit; "
            "else the control worker's setting.",
        ),
    ] = None,
    timeout_action: Annotated[
        TimeoutAction | None, typer.Option(help="What is done then; else the control worker's setting.")
    ] = None,
    max_attempts: MaxAttemptsOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Move servers to other hosts while they run. `operation cancel` aborts, `operation force-complete` hastens it."""
    limit = duration("--completion-timeout", completion_timeout)
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.live_migrate(
            server,
            host=host,
            max_attempts=max_attempts,
            completion_timeout=limit,
            timeout_action=timeout_action,
            on_failure=on_failure,
        ),
    )


def evacuate(
    ctx: typer.Context,
    servers: ServersArgument,
    host: Annotated[
        str | None, typer.Option(help="To this host; else the scheduler chooses.", autocompletion=names("hosts"))
    ] = None,
    max_attempts: MaxAttemptsOption = None,
    on_failure: OnFailureOption = None,
    wait: WaitOption = False,
) -> None:
    """Build servers anew, away from their host, which was declared down. Local disks that are not shared are lost."""
    operate(
        ctx,
        servers,
        wait,
        lambda client, server: client.servers.evacuate(
            server, host=host, max_attempts=max_attempts, on_failure=on_failure
        ),
    )


def confirm(
    ctx: typer.Context, servers: MovedServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Keep resized or migrated servers as they are now; what they left behind is removed."""
    operate(ctx, servers, wait, lambda client, server: client.servers.confirm_resize(server, on_failure=on_failure))


def revert(
    ctx: typer.Context, servers: MovedServersArgument, on_failure: OnFailureOption = None, wait: WaitOption = False
) -> None:
    """Bring resized or migrated servers back to where and what they were; what happened to them since is lost."""
    operate(ctx, servers, wait, lambda client, server: client.servers.revert_resize(server, on_failure=on_failure))
