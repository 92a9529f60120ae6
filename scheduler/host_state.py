"""A host as the scheduler sees it, and how that is read from the database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlmodel import Session, col

from models import Allocation, Host, OwedWork

CHUNK = 1000
"""Hosts in one IN list."""


@dataclass(frozen=True, slots=True)
class HostState:
    """A host. `free_*` has overcommit and reservations taken into account, and may be negative after a shrink.

    `vcpus`, `ram_mib` and `disk_gib` are the physical machine's. `owed` counts clean-ups that wait for the host.
    """

    id: str
    name: str
    zone: str
    enabled: bool
    owed: int
    architecture: str
    hypervisor_type: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    free_vcpus: int
    free_ram_mib: int
    free_disk_gib: int
    generation: int


def read_states(session: Session, host_ids: Sequence[str] | None = None) -> list[HostState]:
    """The present state of the hosts named, or of all of them.

    The host's row is read before its sums: should they change in between, then the state carries the older generation
    and is read again later. The other way round a stale sum would pass for new.
    """
    if host_ids is None:
        return _read(session, None)
    chunks = (host_ids[start : start + CHUNK] for start in range(0, len(host_ids), CHUNK))
    return [state for chunk in chunks for state in _read(session, chunk)]


def _read(session: Session, host_ids: Sequence[str] | None) -> list[HostState]:
    hosts = select(*_COLUMNS)
    used = select(
        Allocation.host_id,
        func.sum(Allocation.vcpus),
        func.sum(Allocation.ram_mib),
        func.sum(Allocation.disk_gib),
    ).group_by(col(Allocation.host_id))
    owed = select(OwedWork.host_id, func.count()).group_by(col(OwedWork.host_id))
    if host_ids is not None:
        hosts = hosts.where(col(Host.id).in_(host_ids))
        used = used.where(col(Allocation.host_id).in_(host_ids))
        owed = owed.where(col(OwedWork.host_id).in_(host_ids))
    rows = session.execute(hosts).all()
    used_by_host = {host_id: sums for host_id, *sums in session.execute(used)}
    owed_by_host = {host_id: count for host_id, count in session.execute(owed)}
    return [_state(row, used_by_host.get(row.id, (0, 0, 0)), owed_by_host.get(row.id, 0)) for row in rows]


_COLUMNS = [
    getattr(Host, name)
    for name in (
        "id",
        "name",
        "zone",
        "enabled",
        "architecture",
        "hypervisor_type",
        "vcpus",
        "ram_mib",
        "disk_gib",
        "reserved_ram_mib",
        "reserved_disk_gib",
        "cpu_ratio",
        "ram_ratio",
        "disk_ratio",
        "generation",
    )
]


def _state(host: Row[Any], used: Iterable[int], owed: int) -> HostState:
    vcpus, ram_mib, disk_gib = used
    return HostState(
        id=host.id,
        name=host.name,
        zone=host.zone,
        enabled=host.enabled,
        owed=owed,
        architecture=host.architecture,
        hypervisor_type=host.hypervisor_type,
        vcpus=host.vcpus,
        ram_mib=host.ram_mib,
        disk_gib=host.disk_gib,
        free_vcpus=int(host.vcpus * host.cpu_ratio) - vcpus,
        free_ram_mib=int((host.ram_mib - host.reserved_ram_mib) * host.ram_ratio) - ram_mib,
        free_disk_gib=int((host.disk_gib - host.reserved_disk_gib) * host.disk_ratio) - disk_gib,
        generation=host.generation,
    )
