"""Volumes: disks that outlive their server."""

from datetime import datetime

from sqlmodel import Field

from hostler.contract.names import DEFAULT_PROJECT
from hostler.contract.resources import VolumeStatus
from models.base import Table, UtcDateTime, Uuid, enumerated, now


class Volume(Table, table=True):
    """A volume. `host_id` is where its file is and is served from, `server_id` who reserved or attached it.

    Owner: the volume's own workflow (`volume:<id>`); `status` and `server_id` belong to the operation on the server
    from reserving it until giving it back.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    project: str = Field(default=DEFAULT_PROJECT, index=True)
    name: str = ""
    size_gib: int
    status: VolumeStatus = Field(default=VolumeStatus.CREATING, sa_type=enumerated(VolumeStatus))
    image_id: str | None = Field(default=None, sa_type=Uuid)
    host_id: str | None = Field(default=None, foreign_key="host.id", index=True, sa_type=Uuid)
    server_id: str | None = Field(default=None, foreign_key="server.id", index=True, sa_type=Uuid)
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)
