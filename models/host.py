"""Hosts: what each offers and whether it may be used."""

from datetime import datetime

from sqlalchemy import false
from sqlmodel import Field, Session, col, update

from hostler.contract.names import DEFAULT_ZONE
from models.base import LongText, Table, UtcDateTime, Uuid, now


class Host(Table, table=True):
    """A host. The UUID is persisted on the host and is who it is; the name is a label that two may share.

    `generation` grows in the transaction of every change of the host's inventory, state, allocations or owed work,
    so a cache knows by it alone what to read again. `machine_id` tells two machines that claim the same UUID apart.

    `down_since` is when somebody declared that the machine is off, so that its servers may be built elsewhere; `fenced`
    whether that was seen to, and not only said.

    Owner: the host's registration writes inventory, name and zone, and takes the declaration back; the operator's calls
    write `enabled` with its reason, and the declaration.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    name: str = Field(index=True)
    zone: str = DEFAULT_ZONE
    vcpus: int
    ram_mib: int
    disk_gib: int
    reserved_ram_mib: int = 0
    reserved_disk_gib: int = 0
    cpu_ratio: float = 4.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    architecture: str
    hypervisor_type: str
    volumes: bool = False
    machine_id: str | None = None
    enabled: bool = True
    disabled_reason: str | None = None
    down_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    down_reason: str | None = Field(default=None, sa_type=LongText)
    fenced: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    generation: int = 0
    registered_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)


def bump_generation(session: Session, host_id: str) -> bool:
    """Say that something of the host changes, and hold its row until the transaction ends.

    Call it before reading what the change depends on: being an UPDATE it is also the lock. False: no such host.
    """
    statement = update(Host).where(col(Host.id) == host_id).values(generation=Host.generation + 1)
    return session.exec(statement).rowcount == 1
