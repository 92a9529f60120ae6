"""`hostler volume`."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, note, show_list, show_one
from hostler.cli.session import session
from hostler.contract.resources import Volume

app = typer.Typer(no_args_is_help=True, help="Volumes.")

VolumeArgument = Annotated[str, typer.Argument(metavar="VOLUME", help="Name or UUID.", autocompletion=names("volumes"))]
COLUMNS: Columns[Volume] = {
    "ID": lambda v: v.id,
    "Name": lambda v: v.name,
    "Status": lambda v: v.status,
    "Size GiB": lambda v: v.size_gib,
    "Server": lambda v: v.server_id,
    "Host": lambda v: v.host,
    "Project": lambda v: v.project,
}
FIELDS: Columns[Volume] = {**COLUMNS, "Image": lambda v: v.image_id, "Created": lambda v: v.created_at}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    size: Annotated[int, typer.Option(metavar="GIB", help="How large.")],
    image: Annotated[
        str | None, typer.Option(help="Whose content it gets; else it is blank.", autocompletion=names("images"))
    ] = None,
    volume_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its UUID.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Make a volume, and wait until it can be used."""
    volume = session(ctx).run(
        lambda client: client.volumes.create(
            name,
            size_gib=size,
            image=image,
            volume_id=volume_id,
            on_note=lambda said: note(f"{name}: {said}"),
        )
    )
    show_one(volume, FIELDS, format, columns)


@app.command("list")
def list_(
    ctx: typer.Context,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """List volumes."""
    volumes = session(ctx).run(lambda client: client.volumes.list(all_projects=all_projects))
    show_list(volumes, FIELDS if columns else COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, volume: VolumeArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Show a volume."""
    show_one(session(ctx).run(lambda client: client.volumes.show(volume)), FIELDS, format, columns)


@app.command()
def delete(ctx: typer.Context, volume: VolumeArgument) -> None:
    """Delete a volume that no server uses, and wait until it is gone."""
    session(ctx).run(lambda client: client.volumes.delete(volume))
