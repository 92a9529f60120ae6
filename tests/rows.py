"""Rows that tests put into the database: complete, and as plain as can be."""

from typing import Any
from uuid import uuid4

from models import Database, Host, Server, Table


def a_host(**changes: Any) -> Host:
    """A host with 8 CPUs, 16 GiB of RAM, 100 GiB of disk and nothing reserved or overcommitted."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "name": "host",
        "vcpus": 8,
        "ram_mib": 16384,
        "disk_gib": 100,
        "cpu_ratio": 1.0,
        "architecture": "x86_64",
        "hypervisor_type": "qemu",
    }
    return Host(**values | changes)


def a_server(**changes: Any) -> Server:
    """A server being built, with one CPU and 1 GiB of RAM."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "name": "server",
        "flavor": {},
        "flavor_id": str(uuid4()),
        "flavor_name": "small",
        "vcpus": 1,
        "ram_mib": 1024,
    }
    return Server(**values | changes)


def add(database: Database, *rows: Table) -> None:
    """Write the rows."""
    with database.write() as session:
        session.add_all(rows)
