"""Hosts as the scheduler sees them, for tests of what needs no database."""

from typing import Any

from scheduler.host_state import HostState
from scheduler.request import SchedulingRequest


def a_state(name: str = "host", **changes: Any) -> HostState:
    """A host with 8 CPUs, 16 GiB of RAM and 100 GiB of disk, all free. Its ID is its name with "id-" before it."""
    values: dict[str, Any] = {
        "id": f"id-{name}",
        "name": name,
        "zone": "nova",
        "enabled": True,
        "owed": 0,
        "architecture": "x86_64",
        "hypervisor_type": "qemu",
        "vcpus": 8,
        "ram_mib": 16384,
        "disk_gib": 100,
        "free_vcpus": 8,
        "free_ram_mib": 16384,
        "free_disk_gib": 100,
        "generation": 0,
    }
    return HostState(**values | changes)


def a_request(**changes: Any) -> SchedulingRequest:
    """A request for one CPU, 1 GiB of RAM and 10 GiB of disk, wherever that is."""
    values: dict[str, Any] = {"server_id": "server", "vcpus": 1, "ram_mib": 1024, "disk_gib": 10}
    return SchedulingRequest(**values | changes)


def ids(hosts: list[HostState]) -> frozenset[str]:
    """Their UUIDs."""
    return frozenset(host.id for host in hosts)
