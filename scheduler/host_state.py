"""A host as the scheduler sees it, and how that is read from the database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, func, select, true
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col

from models import Allocation, Host, OwedWork

CHUNK = 1000
"""Hosts in one IN list."""


@dataclass(frozen=True, slots=True)
class HostState:
    """A host.

    `vcpus`, `ram_mib` and `disk_gib` are the physical machine's. `free_*` is what overcommit and reservations leave;
    negative after a shrink. `hypervisor_type` is in lower case. `owed` counts clean-ups that wait for the host, `down`
    is that it was declared so.
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
    down: bool = False


def read_states(session: Session, host_ids: Sequence[str] | None = None) -> list[HostState]:
    """The present state of the hosts named, or of all of them."""
    if host_ids is None:
        return [_state(row) for row in session.execute(_ALL)]
    chunks = (host_ids[start : start + CHUNK] for start in range(0, len(host_ids), CHUNK))
    return [_state(row) for chunk in chunks for row in session.execute(_NAMED, {"ids": chunk})]


def _query(condition: Callable[[Mapped[str]], ColumnElement[bool]]) -> Select[Any]:
    """Hosts whose ID fulfils `condition`, with what is used of them and owed by them.

    The condition is repeated inside, or the database would add up all allocations to look at one host's. It is one
    statement so that generation and sums are of the same moment.
    """
    used = (
        select(
            col(Allocation.host_id),
            func.sum(col(Allocation.vcpus)).label("vcpus"),
            func.sum(col(Allocation.ram_mib)).label("ram_mib"),
            func.sum(col(Allocation.disk_gib)).label("disk_gib"),
        )
        .where(condition(col(Allocation.host_id)))
        .group_by(col(Allocation.host_id))
        .subquery()
    )
    owed = (
        select(col(OwedWork.host_id), func.count().label("works"))
        .where(condition(col(OwedWork.host_id)))
        .group_by(col(OwedWork.host_id))
        .subquery()
    )
    return (
        select(
            *Host.metadata.tables["host"].columns,
            func.coalesce(used.c.vcpus, 0).label("used_vcpus"),
            func.coalesce(used.c.ram_mib, 0).label("used_ram_mib"),
            func.coalesce(used.c.disk_gib, 0).label("used_disk_gib"),
            func.coalesce(owed.c.works, 0).label("owed"),
        )
        .join_from(Host, used, used.c.host_id == Host.id, isouter=True)
        .outerjoin(owed, owed.c.host_id == Host.id)
        .where(condition(col(Host.id)))
    )


_ALL = _query(lambda _: true())
_NAMED = _query(lambda host_id: host_id.in_(bindparam("ids", expanding=True)))


def _state(host: Row[Any]) -> HostState:
    return HostState(
        id=host.id,
        name=host.name,
        zone=host.zone,
        enabled=host.enabled,
        owed=host.owed,
        architecture=canonical_architecture(host.architecture),
        hypervisor_type=host.hypervisor_type.lower(),
        vcpus=host.vcpus,
        ram_mib=host.ram_mib,
        disk_gib=host.disk_gib,
        free_vcpus=int(host.vcpus * host.cpu_ratio) - host.used_vcpus,
        free_ram_mib=int((host.ram_mib - host.reserved_ram_mib) * host.ram_ratio) - host.used_ram_mib,
        free_disk_gib=int((host.disk_gib - host.reserved_disk_gib) * host.disk_ratio) - host.used_disk_gib,
        generation=host.generation,
        down=host.down_since is not None,
    )


def canonical_architecture(name: str) -> str:
    """Other people's names for a processor, as Nova and libosinfo call it."""
    name = name.lower()
    return _ARCHITECTURES.get(name, name)


_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686", "i486": "i686", "i586": "i686"}
