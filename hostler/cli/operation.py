"""`hostler operation`."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.failures import fail
from hostler.cli.output import Columns, Format, FormatOption, column_option, note, show_list
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client
from hostler.contract.errors import Cancelled, HostlerError
from hostler.contract.servers import Choice, Decided, OperationName, RunningOperation, Server

app = typer.Typer(no_args_is_help=True, help="Operations that run: list them, decide about those that hold, cancel.")

Held = Annotated[
    str,
    typer.Argument(
        metavar="SERVER", help="Name or UUID.", autocompletion=names("operations", "server_name", held=True)
    ),
]
Running = Annotated[
    str, typer.Argument(metavar="SERVER", help="Name or UUID.", autocompletion=names("operations", "server_name"))
]
Note = Annotated[str, typer.Option("--note", help="Why, for those who read the server's events later.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; else USER@MACHINE.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until the operation has ended.")]

COLUMNS: Columns[RunningOperation] = {
    "Began": lambda o: o.started_at,
    "Server": lambda o: o.server_id,
    "Name": lambda o: o.server_name,
    "Operation": lambda o: o.operation,
    "Step": lambda o: o.hold.step if o.hold else o.step,
    "Attempt": lambda o: o.attempt,
    "Host": lambda o: o.host,
    "Held": lambda o: o.held,
    "Overdue": lambda o: o.overdue,
}
HELD_COLUMNS: Columns[RunningOperation] = {
    "Server": lambda o: o.server_id,
    "Name": lambda o: o.server_name,
    "Operation": lambda o: o.operation,
    "Step": COLUMNS["Step"],
    "Host": lambda o: o.host,
    "Since": lambda o: o.hold and o.hold.since,
    "Until": lambda o: o.hold and o.hold.until,
    "Choices": lambda o: o.hold and ", ".join(o.hold.choices),
    "Reason": lambda o: o.hold and o.hold.error.message,
}
FIELDS: Columns[RunningOperation] = {
    **COLUMNS,
    **HELD_COLUMNS,
    "Project": lambda o: o.project,
    "Run": lambda o: o.run_id,
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command("list")
def list_(
    ctx: typer.Context,
    held: Annotated[bool, typer.Option("--held", help="Only those that wait for a decision, with the reason.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those that take longer than they should.")] = False,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """List operations that run, the latest first."""
    running = session(ctx).run(
        lambda client: client.operations.list(
            held=held or None, overdue=overdue or None, all_projects=all_projects, limit=limit
        )
    )
    show_list(running, FIELDS if columns else HELD_COLUMNS if held else COLUMNS, format, columns)


@app.command()
def retry(ctx: typer.Context, server: Held, note: Note = "", by: By = None, wait: Wait = False) -> None:
    """Let an operation that holds try the step that failed once more."""
    _decide(ctx, server, wait, lambda client: client.operations.retry(server, note=note, by=by))


@app.command()
def move(
    ctx: typer.Context,
    server: Held,
    host: Annotated[
        str | None, typer.Option(help="This host; else the scheduler chooses.", autocompletion=names("hosts"))
    ] = None,
    note: Note = "",
    by: By = None,
    wait: Wait = False,
) -> None:
    """Let an operation that holds leave its host for another one."""
    _decide(ctx, server, wait, lambda client: client.operations.move(server, host=host, note=note, by=by))


@app.command("give-up")
def give_up(ctx: typer.Context, server: Held, note: Note = "", by: By = None, wait: Wait = False) -> None:
    """Let an operation that holds undo what it has done, and fail."""
    _decide(ctx, server, wait, lambda client: client.operations.give_up(server, note=note, by=by))


@app.command()
def cancel(ctx: typer.Context, server: Running, note: Note = "", by: By = None, wait: Wait = False) -> None:
    """Let an operation stop and undo what it has done, whether it holds or not."""

    async def work(client: Client) -> Server | HostlerError | None:
        operation = await client.operations.cancel(server, note=note, by=by)
        if wait:
            return (await watch({server: operation}))[server]
        _say(operation.operation, server, "is asked to stop")
        return None

    outcome = session(ctx).run(work)
    if isinstance(outcome, Server):
        _too_late(server)
    if isinstance(outcome, HostlerError) and not isinstance(outcome, Cancelled):
        fail([], [outcome])


@app.command("force-complete")
def force_complete(ctx: typer.Context, server: Running, by: By = None, wait: Wait = False) -> None:
    """Let a live migration end soon, at the price of its guest's standing still until it is across."""

    async def work(client: Client) -> Server | HostlerError | None:
        await client.operations.force_complete(server, by=by)
        if wait:
            return (await watch({server: await client.servers.operation(server)}))[server]
        _say(OperationName.LIVE_MIGRATE, server, "is asked to end soon")
        return None

    outcome = session(ctx).run(work)
    if isinstance(outcome, HostlerError):
        fail([], [outcome])


def _decide(ctx: typer.Context, server: str, wait: bool, decide: Callable[[Client], Awaitable[Decided]]) -> None:
    async def work(client: Client) -> tuple[Decided, Server | HostlerError | None]:
        decided = await decide(client)
        if wait:
            return decided, (await watch({server: await client.servers.operation(server)}))[server]
        _say(decided.operation, server, f"takes the decision: {decided.choice} at {decided.step}")
        return decided, None

    decided, outcome = session(ctx).run(work)
    if isinstance(outcome, HostlerError) and decided.choice is not Choice.GIVE_UP:
        fail([], [outcome])


def _too_late(server: str) -> None:
    note(f"{server}: it had come too far to be stopped, and is done; see it with: hostler server show {server}")


def _say(operation: str, server: str, what: str) -> None:
    note(f"{operation} of {server} {what}; watch it with: hostler server follow {server}")
