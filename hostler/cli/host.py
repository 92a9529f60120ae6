"""`hostler host`."""

from typing import Annotated

import typer

from hostler.cli import host_failures, host_moves
from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, console, show_list, show_one, table
from hostler.cli.session import session
from hostler.contract.resources import Host

app = typer.Typer(no_args_is_help=True, help="Hypervisors: see, enable, disable, drain, declare down, evacuate.")

HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="Name or UUID.", autocompletion=names("hosts"))]
COLUMNS: Columns[Host] = {
    "ID": lambda h: h.id,
    "Name": lambda h: h.name,
    "State": lambda h: _state(h),
    "Enabled": lambda h: h.enabled,
    "Zone": lambda h: h.zone,
    "Servers": lambda h: h.servers,
    "VCPUs": lambda h: f"{h.used_vcpus}/{h.inventory.vcpus * h.inventory.cpu_ratio:.0f}",
    "RAM MiB": lambda h: (
        f"{h.used_ram_mib}/{_room(h.inventory.ram_mib, h.inventory.reserved_ram_mib, h.inventory.ram_ratio)}"
    ),
    "Disk GiB": lambda h: (
        f"{h.used_disk_gib}/{_room(h.inventory.disk_gib, h.inventory.reserved_disk_gib, h.inventory.disk_ratio)}"
    ),
    "Owed": lambda h: h.owed,
}
FIELDS: Columns[Host] = {
    **COLUMNS,
    "Disabled because": lambda h: h.disabled_reason,
    "Declared down": lambda h: h.down_since,
    "Down because": lambda h: h.down_reason,
    "Fenced": lambda h: h.fenced,
    "Hypervisor": lambda h: h.inventory.hypervisor_type,
    "Architecture": lambda h: h.inventory.architecture,
    "Registered": lambda h: h.registered_at,
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


def _state(host: Host) -> str:
    state = "up" if host.up else "down"
    return f"{state} (declared down)" if host.down_since else state


def _room(size: int, reserved: int, ratio: float) -> int:
    """What the scheduler may give away."""
    return int((size - reserved) * ratio)


@app.command("list")
def list_(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """List hosts, with what is used of what they offer. Owed counts the clean-ups that wait for a host's return."""
    show_list(session(ctx).run(lambda client: client.hosts.list()), FIELDS if columns else COLUMNS, format, columns)


@app.command()
def show(ctx: typer.Context, host: HostArgument, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """Show a host, and what it owes."""
    found = session(ctx).run(lambda client: client.hosts.show(host))
    show_one(found, FIELDS, format, columns)
    if found.owes and not columns and format is Format.TABLE:
        rows = [[work.activity, work.server_id, work.since, work.reason] for work in found.owes]
        out = console()
        out.print("\nOwes, before it gets new servers:", style="bold")
        out.print(table(["Activity", "Server", "Since", "Because"], rows))


@app.command()
def enable(ctx: typer.Context, host: HostArgument, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """Let the scheduler use a host again."""
    show_one(session(ctx).run(lambda client: client.hosts.enable(host)), FIELDS, format, columns)


@app.command()
def disable(
    ctx: typer.Context,
    host: HostArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for those who wonder later.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Keep new servers off a host; those that it has stay."""
    show_one(session(ctx).run(lambda client: client.hosts.disable(host, reason)), FIELDS, format, columns)


@app.command("declare-down")
def declare_down(
    ctx: typer.Context,
    host: HostArgument,
    reason: Annotated[str, typer.Option(help="Why, for those who wonder later.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the machine is off.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Say that a host's machine is off, so that its servers may be evacuated; its return takes that back."""
    if not yes:
        typer.confirm(
            f"Is the machine of host {host} off, so that none of its guests can be running, and will it stay so?",
            abort=True,
        )
    show_one(session(ctx).run(lambda client: client.hosts.declare_down(host, reason)), FIELDS, format, columns)


@app.command("new-machine")
def new_machine(
    ctx: typer.Context, host: HostArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Let the next machine that comes with a host's UUID be that host.

    For a machine that was installed anew with the host's state directory, or replaced. The former one must be off.
    """
    show_one(session(ctx).run(lambda client: client.hosts.new_machine(host)), FIELDS, format, columns)


app.command("drain")(host_moves.drain)
app.command("evacuate")(host_moves.evacuate)
app.command("failures")(host_failures.failures)
