"""`hostler migration`."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, show_list
from hostler.cli.session import session
from hostler.contract.servers import MigrationKind, MigrationStatus, ServerMigration

app = typer.Typer(no_args_is_help=True, help="Moves of servers: those under way, and those that were.")

COLUMNS: Columns[ServerMigration] = {
    "Began": lambda m: m.created_at,
    "Server": lambda m: m.server_id,
    "Name": lambda m: m.server_name,
    "Kind": lambda m: m.kind,
    "Source": lambda m: m.source,
    "Target": lambda m: m.target,
    "Status": lambda m: m.status,
    "Ended": lambda m: m.ended_at,
    "Run": lambda m: m.id,
}
FIELDS: Columns[ServerMigration] = {
    **COLUMNS,
    "Old flavor": lambda m: m.old_flavor,
    "New flavor": lambda m: m.new_flavor,
    "Confirms": lambda m: m.confirms_at,
    "Project": lambda m: m.project,
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.callback()
def migration() -> None:
    """Moves of servers: those under way, and those that were."""


@app.command("list")
def list_(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Only from this host or to it.", autocompletion=names("hosts"))
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Only of this server, by name or UUID.", autocompletion=names("servers")),
    ] = None,
    kind: Annotated[MigrationKind | None, typer.Option(help="Only of this kind.")] = None,
    status: Annotated[MigrationStatus | None, typer.Option(help="Only of this status.")] = None,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """List moves of servers, the latest first. Why one failed: `hostler server events`, by its run."""
    found = session(ctx).run(
        lambda client: client.migrations.list(
            host=host, server=server, kind=kind, status=status, all_projects=all_projects, limit=limit
        )
    )
    show_list(found, FIELDS if columns else COLUMNS, format, columns)
