"""`hostler flavor`."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, show_list, show_one
from hostler.cli.session import session
from hostler.contract.resources import Flavor

app = typer.Typer(no_args_is_help=True, help="Sizes of servers.")

FlavorArgument = Annotated[str, typer.Argument(metavar="FLAVOR", help="Name or UUID.", autocompletion=names("flavors"))]
COLUMNS: Columns[Flavor] = {
    "ID": lambda f: f.id,
    "Name": lambda f: f.name,
    "VCPUs": lambda f: f.vcpus,
    "RAM MiB": lambda f: f.ram_mib,
    "Disk GiB": lambda f: f.disk_gib,
    "Ephemeral GiB": lambda f: f.ephemeral_gib,
    "Swap MiB": lambda f: f.swap_mib,
}
Picked = Annotated[list[str] | None, column_option(COLUMNS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs.")],
    ram: Annotated[int, typer.Option(metavar="MIB", help="Memory.")],
    disk: Annotated[int, typer.Option(metavar="GIB", help="Root disk; 0: as large as the image.")] = 0,
    ephemeral: Annotated[int, typer.Option(metavar="GIB", help="Second, blank disk.")] = 0,
    swap: Annotated[int, typer.Option(metavar="MIB", help="Swap disk.")] = 0,
    flavor_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its UUID.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Make a flavor."""
    flavor = session(ctx).run(
        lambda client: client.flavors.create(
            name,
            vcpus=vcpus,
            ram_mib=ram,
            disk_gib=disk,
            ephemeral_gib=ephemeral,
            swap_mib=swap,
            flavor_id=flavor_id,
        )
    )
    show_one(flavor, COLUMNS, format, columns)


@app.command("list")
def list_(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """List flavors."""
    show_list(session(ctx).run(lambda client: client.flavors.list()), COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, flavor: FlavorArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Show a flavor."""
    show_one(session(ctx).run(lambda client: client.flavors.show(flavor)), COLUMNS, format, columns)


@app.command()
def delete(ctx: typer.Context, flavor: FlavorArgument) -> None:
    """Delete a flavor; servers made with it keep their size."""
    session(ctx).run(lambda client: client.flavors.delete(flavor))
