"""Block devices: the disks of a server, local ones and volumes."""

from sqlmodel import BigInteger, Field

from hostler.contract.guests import DiskKind
from hostler.contract.servers import DestinationType, SourceType
from models.base import Table, Uuid, enumerated


class BlockDevice(Table, table=True):
    """A disk of a server. `volume_id` is None for a disk on the host; `position` counts from 0.

    Owner: the operation that holds the server.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    server_id: str = Field(foreign_key="server.id", index=True, sa_type=Uuid)
    position: int
    kind: DiskKind = Field(sa_type=enumerated(DiskKind))
    device: str
    size_bytes: int = Field(sa_type=BigInteger)
    source_type: SourceType = Field(sa_type=enumerated(SourceType))
    destination_type: DestinationType = Field(sa_type=enumerated(DestinationType))
    image_id: str | None = Field(default=None, sa_type=Uuid)
    volume_id: str | None = Field(default=None, index=True, sa_type=Uuid)
    bootable: bool = False
    delete_on_termination: bool = False
    guest_format: str | None = None
