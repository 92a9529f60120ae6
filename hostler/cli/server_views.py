"""How servers and their events are shown."""

from hostler.cli import holds, migrations
from hostler.cli.failures import reasons
from hostler.cli.output import Columns, Format, cell, console, show_one
from hostler.contract.servers import Server, ServerEvent


def networks(server: Server) -> str:
    """Its addresses by network, as Nova's clients write them."""
    addresses: dict[str, list[str]] = {}
    for address in server.addresses:
        addresses.setdefault(address.network, []).append(address.ip)
    return "; ".join(f"{network}={', '.join(ips)}" for network, ips in addresses.items())


def _devices(server: Server) -> list[str]:
    return [
        f"{d.device}: {d.kind}, {d.size_bytes / 2**30:.4g} GiB{f', volume {d.volume_id}' if d.volume_id else ''}"
        for d in server.devices
    ]


def _task(server: Server) -> str | None:
    return f"{server.task_state}, held at {server.hold.step}" if server.hold else server.task_state


COLUMNS: Columns[Server] = {
    "ID": lambda s: s.id,
    "Name": lambda s: s.name,
    "Status": lambda s: s.status,
    "Task": _task,
    "Power": lambda s: s.power_state,
    "Networks": networks,
    "Flavor": lambda s: s.flavor,
    "Host": lambda s: s.host,
}
LONG_COLUMNS: Columns[Server] = {
    **COLUMNS,
    "Image": lambda s: s.image,
    "Zone": lambda s: s.availability_zone,
    "Project": lambda s: s.project,
    "Created": lambda s: s.created_at,
}
FIELDS: Columns[Server] = {
    "ID": lambda s: s.id,
    "Name": lambda s: s.name,
    "Status": lambda s: s.status,
    "VM state": lambda s: s.vm_state,
    "Task": lambda s: s.task_state,
    "Power": lambda s: s.power_state,
    "Fault": lambda s: s.fault and s.fault.error.message,
    "Hold": lambda s: s.hold and holds.summary(s.hold),
    "Migration": lambda s: s.migration and migrations.summary(s.migration),
    "Host": lambda s: s.host,
    "Zone": lambda s: s.availability_zone,
    "Flavor": lambda s: s.flavor,
    "Image": lambda s: f"{s.image} ({s.image_id})" if s.image and s.image_id else s.image or s.image_id,
    "Networks": networks,
    "MACs": lambda s: [f"{a.mac} {a.ip} (port {a.port_id})" for a in s.addresses],
    "Devices": _devices,
    "Key": lambda s: s.key_name,
    "Properties": lambda s: s.metadata,
    "Project": lambda s: s.project,
    "Created": lambda s: s.created_at,
    "Launched": lambda s: s.launched_at,
    "Shelved": lambda s: s.shelved_at,
    "Shelved image": lambda s: s.shelved_image_id,
    "Deleted": lambda s: s.deleted_at,
}


def _duration(event: ServerEvent) -> str | None:
    began, ended = event.step.started_at, event.step.finished_at
    return f"{(ended - began).total_seconds():.2f} s" if began and ended else None


EVENT_COLUMNS: Columns[ServerEvent] = {
    "Began": lambda e: e.step.started_at,
    "Operation": lambda e: e.operation,
    "Step": lambda e: e.step.name,
    "Status": lambda e: e.step.status,
    "Attempt": lambda e: e.step.attempt,
    "Host": lambda e: e.step.host,
    "Time": _duration,
    "Note": lambda e: ", ".join(filter(None, (e.step.note, e.step.error))),
    "Run": lambda e: e.run_id,
}


def show_server(server: Server, format: Format, picked: list[str] | None) -> None:
    """Print a server, and below it all that its fault and its hold say, and what a migration waits for."""
    show_one(server, FIELDS, format, picked)
    if picked or format is not Format.TABLE:
        return
    out = console()
    if server.fault is not None:
        error = server.fault.error
        out.print(f"Fault of {cell(server.fault.created_at)}: {error.code}", style="bold red", markup=False)
        for part in reasons(error):
            out.print(part)
    if server.hold is not None:
        out.print(f"Held {holds.deadline(server.hold)}. Decide:", style="bold yellow", markup=False)
        for part in reasons(server.hold.error):
            out.print(part)
        for command in holds.commands(server.hold, server.id):
            out.print(f"  {command}", markup=False, highlight=False)
    if server.migration is not None and (commands := migrations.commands(server, server.id)):
        out.print(f"{migrations.summary(server.migration)}. Decide:", style="bold yellow", markup=False)
        for command in commands:
            out.print(f"  {command}", markup=False, highlight=False)
