"""`hostler quota`."""

from typing import Annotated

import typer

from hostler.cli.output import Columns, Format, FormatOption, column_option, show_one
from hostler.cli.session import session
from hostler.contract.resources import Quota

app = typer.Typer(no_args_is_help=True, help="A project's limits.")


def _used(used: int, limit: int) -> str:
    return f"{used} of {'any number' if limit < 0 else limit}"


FIELDS: Columns[Quota] = {
    "Project": lambda q: q.project,
    "Servers": lambda q: _used(q.used_servers, q.servers),
    "VCPUs": lambda q: _used(q.used_vcpus, q.vcpus),
    "RAM MiB": lambda q: _used(q.used_ram_mib, q.ram_mib),
    "Volumes": lambda q: _used(q.used_volumes, q.volumes),
    "Volume GiB": lambda q: _used(q.used_volume_gib, q.volume_gib),
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def show(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """Show the project's limits, and what is used of them."""
    show_one(session(ctx).run(lambda client: client.quotas.show()), FIELDS, format, columns)


@app.command("set")
def set_(
    ctx: typer.Context,
    servers: Annotated[int | None, typer.Option(help="How many servers.")] = None,
    vcpus: Annotated[int | None, typer.Option(help="Virtual CPUs of all servers.")] = None,
    ram: Annotated[int | None, typer.Option(metavar="MIB", help="Memory of all servers.")] = None,
    volumes: Annotated[int | None, typer.Option(help="How many volumes.")] = None,
    volume_gib: Annotated[int | None, typer.Option(metavar="GIB", help="Size of all volumes.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Change limits of the project; -1 is none. What is not given stays."""
    quota = session(ctx).run(
        lambda client: client.quotas.set(
            servers=servers, vcpus=vcpus, ram_mib=ram, volumes=volumes, volume_gib=volume_gib
        )
    )
    show_one(quota, FIELDS, format, columns)
