"""`hostler aggregate`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, show_list, show_one
from hostler.cli.pairs import KeyOption, PropertyOption, changes, properties
from hostler.cli.session import session
from hostler.contract.resources import Aggregate

if TYPE_CHECKING:
    from hostler.client.aggregates import Aggregates

app = typer.Typer(no_args_is_help=True, help="Aggregates: hosts that have something in common.")

AggregateArgument = Annotated[
    str, typer.Argument(metavar="AGGREGATE", help="Name or UUID.", autocompletion=names("aggregates"))
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="Name or UUID.", autocompletion=names("hosts"))]
COLUMNS: Columns[Aggregate] = {
    "ID": lambda a: a.id,
    "Name": lambda a: a.name,
    "Hosts": lambda a: a.hosts,
    "Metadata": lambda a: a.metadata,
}
FIELDS: Columns[Aggregate] = {**COLUMNS, "Created": lambda a: a.created_at}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    property: PropertyOption = None,
    aggregate_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its UUID.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Make an aggregate, without hosts."""
    metadata = properties(property)
    aggregate = session(ctx).run(
        lambda client: client.aggregates.create(name, metadata=metadata, aggregate_id=aggregate_id)
    )
    show_one(aggregate, FIELDS, format, columns)


@app.command("list")
def list_(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """List aggregates."""
    aggregates = session(ctx).run(lambda client: client.aggregates.list())
    show_list(aggregates, FIELDS if columns else COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, aggregate: AggregateArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Show an aggregate."""
    show_one(session(ctx).run(lambda client: client.aggregates.show(aggregate)), FIELDS, format, columns)


@app.command()
def delete(ctx: typer.Context, aggregate: AggregateArgument) -> None:
    """Delete an aggregate that has no hosts."""
    session(ctx).run(lambda client: client.aggregates.delete(aggregate))


def _host_command(
    name: str, meaning: str, change: "Callable[[Aggregates], Callable[[str, str], Awaitable[Aggregate]]]"
) -> None:
    """Add a command that changes which hosts an aggregate has."""

    @app.command(name, help=meaning)
    def command(
        ctx: typer.Context,
        aggregate: AggregateArgument,
        host: HostArgument,
        format: FormatOption = Format.TABLE,
        columns: Picked = None,
    ) -> None:
        changed = session(ctx).run(lambda client: change(client.aggregates)(aggregate, host))
        show_one(changed, FIELDS, format, columns)


_host_command("add-host", "Put a host into an aggregate.", lambda aggregates: aggregates.add_host)
_host_command("remove-host", "Take a host out of an aggregate.", lambda aggregates: aggregates.remove_host)


@app.command("set")
def set_(
    ctx: typer.Context,
    aggregate: AggregateArgument,
    property: PropertyOption = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Set metadata of an aggregate; the rest stays."""
    _change(ctx, aggregate, changes(properties(property)), format, columns)


@app.command()
def unset(
    ctx: typer.Context,
    aggregate: AggregateArgument,
    property: KeyOption = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Take metadata of an aggregate away."""
    _change(ctx, aggregate, changes(dict.fromkeys(property or [])), format, columns)


def _change(
    ctx: typer.Context, aggregate: str, metadata: Mapping[str, str | None], format: Format, columns: list[str] | None
) -> None:
    show_one(session(ctx).run(lambda client: client.aggregates.set(aggregate, metadata)), FIELDS, format, columns)
