"""`hostler server set` and `unset`: a server's metadata, which it shows as its properties."""

from collections.abc import Mapping
from typing import Annotated

import typer

from hostler.cli.operating import ServerArgument
from hostler.cli.output import Format, FormatOption, column_option
from hostler.cli.pairs import KeyOption, PropertyOption, changes, properties
from hostler.cli.server_views import FIELDS, show_server
from hostler.cli.session import session

PickedFields = Annotated[list[str] | None, column_option(FIELDS)]


def set_(
    ctx: typer.Context,
    server: ServerArgument,
    property: PropertyOption = None,
    format: FormatOption = Format.TABLE,
    columns: PickedFields = None,
) -> None:
    """Set metadata of a server; the rest stays."""
    _change(ctx, server, changes(properties(property)), format, columns)


def unset(
    ctx: typer.Context,
    server: ServerArgument,
    property: KeyOption = None,
    format: FormatOption = Format.TABLE,
    columns: PickedFields = None,
) -> None:
    """Take metadata of a server away."""
    _change(ctx, server, changes(dict.fromkeys(property or [])), format, columns)


def _change(
    ctx: typer.Context, server: str, metadata: Mapping[str, str | None], format: Format, columns: list[str] | None
) -> None:
    show_server(session(ctx).run(lambda client: client.servers.set(server, metadata)), format, columns)
