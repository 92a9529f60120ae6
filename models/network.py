"""Networks and the ports on them; the source of fixed IP addresses."""

from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from sqlmodel import Field, Session, UniqueConstraint, select

from hostler.contract.names import DEFAULT_PROJECT
from models.base import Json, Table, UtcDateTime, Uuid, now

VNI_DIGITS = 6
"""A VXLAN network identifier has 24 bits."""


class Network(Table, table=True):
    """A network with one IPv4 subnet. `vni` tells it from others in the overlay that joins hosts.

    Owner: the catalogue calls. Whoever gives out an address locks this row first.
    """

    __table_args__ = (UniqueConstraint("project", "name"),)

    id: str = Field(primary_key=True, sa_type=Uuid)
    name: str
    project: str = DEFAULT_PROJECT
    cidr: str
    gateway: str
    dns: list[str] = Field(default_factory=list, sa_type=Json)
    mtu: int = 1500
    vni: int | None = Field(default=None, index=True, unique=True)


class Port(Table, table=True):
    """An interface of a server; the row itself is the lease of its IP and MAC. `position` counts from 0.

    Owner: the operation that holds the server.
    """

    __table_args__ = (UniqueConstraint("network_id", "ip"),)

    id: str = Field(primary_key=True, sa_type=Uuid)
    network_id: str = Field(foreign_key="network.id", sa_type=Uuid)
    server_id: str = Field(foreign_key="server.id", index=True, sa_type=Uuid)
    mac: str = Field(unique=True)
    ip: str
    position: int = 0
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)


def free_vni(session: Session, network_id: str) -> int:
    """A VNI that follows from the network's UUID, or from its next hash where another network has that one."""
    candidate = network_id
    while True:
        candidate = uuid5(NAMESPACE_URL, candidate).hex
        vni = int(candidate[:VNI_DIGITS], 16)
        if vni and session.exec(select(Network.id).where(Network.vni == vni)).first() is None:
            return vni
