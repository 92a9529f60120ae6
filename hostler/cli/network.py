"""`hostler network`."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, show_list, show_one
from hostler.cli.session import session
from hostler.contract.resources import Network

app = typer.Typer(no_args_is_help=True, help="Networks and their subnets.")

NetworkArgument = Annotated[
    str, typer.Argument(metavar="NETWORK", help="Name or UUID.", autocompletion=names("networks"))
]
COLUMNS: Columns[Network] = {
    "ID": lambda n: n.id,
    "Name": lambda n: n.name,
    "CIDR": lambda n: n.cidr,
    "Gateway": lambda n: n.gateway,
    "DNS": lambda n: ", ".join(n.dns),
    "MTU": lambda n: n.mtu,
    "Ports": lambda n: n.ports,
    "Project": lambda n: n.project,
}
Picked = Annotated[list[str] | None, column_option(COLUMNS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    cidr: Annotated[str, typer.Option(help="Its IPv4 subnet, like 10.0.0.0/24.")],
    gateway: Annotated[str | None, typer.Option(help="Else the subnet's first address.")] = None,
    dns: Annotated[list[str] | None, typer.Option(help="Name server; repeat for more.")] = None,
    mtu: Annotated[int, typer.Option(metavar="BYTES", help="Largest packet.")] = 1500,
    network_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its UUID.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Make a network."""
    network = session(ctx).run(
        lambda client: client.networks.create(
            name, cidr=cidr, gateway=gateway, dns=dns or [], mtu=mtu, network_id=network_id
        )
    )
    show_one(network, COLUMNS, format, columns)


@app.command("list")
def list_(
    ctx: typer.Context,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """List networks."""
    networks = session(ctx).run(lambda client: client.networks.list(all_projects=all_projects))
    show_list(networks, COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, network: NetworkArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Show a network."""
    show_one(session(ctx).run(lambda client: client.networks.show(network)), COLUMNS, format, columns)


@app.command()
def delete(ctx: typer.Context, network: NetworkArgument) -> None:
    """Delete a network that no port uses."""
    session(ctx).run(lambda client: client.networks.delete(network))
