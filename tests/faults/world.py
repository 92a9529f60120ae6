"""The world of one case: everything that operations take and must give back, in lines that can be compared.

Rows come from every table of the database, files from every directory of every host and from the image store: what is
added to the product later is looked at without a word here. Identifiers are replaced by what they are of, so that two
runs of one operation give the same lines; an identifier of nothing that is known stays, and shows as a difference.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlmodel import Session, select

import models
from hostler.contract.names import bridge_name, tap_name
from hostler.contract.states import PowerState, VmState
from models import Host, Image, Migration, Network, OwedWork, Port, Server, ServerEvent, Volume, quota_use
from tests.faults.files import VOLATILE, held, stored

Row = dict[str, str]
OWED, SERVER, UNDER_WAY = "owed_work", "<server>", "under way"
# Histories grow with everything that happens.
HISTORIES = {"server_event", "deleted_image"}
KEPT = re.compile(r"(.*/)?volumes/")


@dataclass
class World:
    """What there is: `server` is the row of the one server of the case, the rest by where it was found."""

    sections: dict[str, list[str]]
    server: Row | None = None

    def without(self, *names: str) -> "World":
        """This world without what is on these hosts, and without what they owe."""
        hidden = tuple(f"{name}: " for name in names)
        kept = {where: lines for where, lines in self.sections.items() if not where.startswith(hidden)}
        kept.pop(OWED, None)
        return World(kept, self.server)

    def on(self, *names: str) -> dict[str, list[str]]:
        """What is on these hosts."""
        shown = tuple(f"{name}: " for name in names)
        return {where: lines for where, lines in self.sections.items() if where.startswith(shown)}

    def differences(self, expected: "World") -> list[str]:
        """Line by line: "+" is too much, "-" is missing. The server's row is not looked at."""
        found = []
        for where in sorted(self.sections.keys() | expected.sections.keys()):
            here, there = list(self.sections.get(where, [])), list(expected.sections.get(where, []))
            for line in list(here):
                if line in there:
                    here.remove(line)
                    there.remove(line)
            found += [f"+ {where}: {line}" for line in here] + [f"- {where}: {line}" for line in there]
        return found


@dataclass
class Roles:
    """Identifiers, and what they are of."""

    names: dict[str, str] = field(default_factory=dict)

    def add(self, identifier: str, role: str) -> None:
        """`identifier` is that of `role`."""
        self.names[identifier] = f"<{role}>"

    def __call__(self, text: str) -> str:
        """`text` with roles for identifiers."""
        if not self.names:
            return text
        pattern = "|".join(re.escape(one) for one in sorted(self.names, key=len, reverse=True))
        return re.sub(pattern, lambda match: self.names[match.group()], text)


def look(
    database: models.Database, server_id: str, directories: Mapping[str, Path], store: Path, project: str, known: Roles
) -> tuple[World, Roles]:
    """The database, the directories of the hosts by their names, the image store. What is under way the runner knows.

    `known` remembers what identifiers were of: what is left of a port keeps its role when the row has gone. Without a
    `server_id` all servers go by their names.
    """
    server = None
    sections: dict[str, list[str]] = {}
    with database.read() as session:
        known.names |= roles_of(session, server_id).names
        roles = known
        for table, rows in _tables(session, roles, roles_of(session, server_id, moving=False)):
            if table == Server.__tablename__:
                server = next((row for row in rows if row["id"] == SERVER), None)
                rows = [row for row in rows if row is not server]
            if rows:
                sections[table] = [", ".join(f"{key}={value}" for key, value in row.items()) for row in rows]
        use = quota_use(session, project)
        sections["quota"] = [f"{use.servers} servers, {use.vcpus} vCPUs, {use.ram_mib} MiB, {use.volumes} volumes"]
        images = {image.id: image.checksum for image in session.exec(select(Image))}
        own = roles_of(session, server_id, moving=False)
    sections["image store"] = stored(store, roles)
    for name, directory in directories.items():
        # What a host keeps for servers elsewhere is its own, whether the server is there or not.
        kept = [line for line in held(directory, own, images) if KEPT.match(line)]
        sections[f"{own(name)}: volumes"] = kept
        sections[f"{roles(name)}: files"] = [line for line in held(directory, roles, images) if not KEPT.match(line)]
    return World({where: sorted(lines) for where, lines in sections.items()}, server), roles


def roles_of(session: Session, server_id: str, *, moving: bool = True) -> Roles:
    """What the identifiers in the database are of. With `moving` the server's host is "its host", whichever it is.

    What is of another server says so.
    """
    roles = Roles()
    others = {row.id: row.name for row in session.exec(select(Server)) if row.id != server_id}

    def of(owner: str | None) -> str:
        return f" of {others[owner]}" if owner in others else ""

    server = session.get(Server, server_id)
    home = server.host_id if server is not None and moving else None
    for host in session.exec(select(Host)):
        label = "its host" if host.id == home else host.name
        roles.add(host.id, label)
        roles.add(host.name, label)
    for network in session.exec(select(Network)):
        roles.add(network.id, network.name)
        roles.add(network.cidr.rpartition(".")[0] + ".", f"{network.name}.")
        roles.add(bridge_name(network.id), f"bridge {network.name}")
    for port in session.exec(select(Port)):
        position = f"{port.position}{of(port.server_id)}"
        roles.add(port.id, f"port {position}")
        roles.add(tap_name(port.id), f"tap {position}")
        roles.add(port.mac, f"mac {position}")
    for row in [*session.exec(select(Image)), *session.exec(select(models.Flavor))]:
        roles.add(row.id, f"{type(row).__name__.lower()} {row.name or 'of the server'}")
    for volume in session.exec(select(Volume)):
        roles.add(volume.id, f"volume {volume.name or 'of the server'}{of(volume.server_id)}")
    for device in session.exec(select(models.BlockDevice)):
        roles.add(device.id, f"device {device.position}{of(device.server_id)}")
        if device.image_id is not None and device.image_id not in roles.names:
            roles.add(device.image_id, f"former image of device {device.position}")
    for work in session.exec(select(OwedWork)):
        roles.add(work.id, f"owed {work.activity}{of(work.server_id)}")
    for event in session.exec(select(ServerEvent)):
        roles.add(event.run_id, f"run of {event.operation}{of(event.server_id)}")
    for other, name in others.items():
        roles.add(other, name)
    if server_id:
        roles.add(server_id, "server")
    return roles


def _tables(session: Session, roles: Roles, names: Roles) -> Iterable[tuple[str, list[Row]]]:
    """The rows of every table; hosts themselves are named, since they stay what they are wherever the server is."""
    for table in models.Table.metadata.sorted_tables:
        if table.name not in HISTORIES:
            called = names if table.name in (Host.__tablename__, Volume.__tablename__) else roles
            rows = [dict(row) for row in session.execute(table.select()).mappings()]
            yield table.name, [_columns(row, called) for row in rows if not _is_over(table.name, row)]


def _is_over(table: str, row: Mapping[str, Any]) -> bool:
    """Whether it is a move that has ended: only histories know of it."""
    return table == Migration.__tablename__ and row["status"] not in models.OPEN_MIGRATIONS


def _columns(row: Mapping[str, Any], roles: Roles) -> Row:
    return {key: roles(_value(value)) for key, value in sorted(row.items()) if key not in VOLATILE}


def _value(value: Any) -> str:
    if isinstance(value, datetime):
        return "set"  # when is not what matters
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict):
        return "none" if not value else json.dumps(value, sort_keys=True, default=str)
    return "none" if value is None else str(value)


# What the server's row must say, beyond being equal to another.

GONE = {"vm_state": VmState.DELETED.value, "task_state": "none", "power_state": PowerState.NOSTATE.value}
GONE |= {"operation_id": "none", "host_id": "none", "user_data": "none", "hold": "none", "deleted_at": "set"}
FAILED = {"vm_state": VmState.ERROR.value, "task_state": "none", "power_state": PowerState.NOSTATE.value}
FAILED |= {"operation_id": "none", "host_id": "none", "hold": "none", "launched_at": "none", "deleted_at": "none"}


def is_gone(row: Row | None) -> list[str]:
    """Why the row is not that of a server that is gone; one that never was is gone, too."""
    return [] if row is None else _unlike(row, GONE)


def has_failed(row: Row | None) -> list[str]:
    """Why the row is not that of a server that could not be built; one that was refused has none."""
    if row is None:
        return []
    return _unlike(row, FAILED) + ([] if row.get("fault") != "none" else ["- server: a fault"])


def is_like(row: Row | None, expected: Row | None) -> list[str]:
    """Why the row differs from another."""
    if row is None or expected is None:
        return [] if row is expected else [f"{'-' if row is None else '+'} server: a row"]
    if expected.get("vm_state") == VmState.DELETED.value:
        return is_gone(row)
    return _unlike(row, expected)


def _unlike(row: Row, expected: Row) -> list[str]:
    wrong = [key for key, value in expected.items() if key in row and row[key] != value]
    return [line for key in wrong for line in (f"+ server: {key}={row[key]}", f"- server: {key}={expected[key]}")]
