"""Images: what is in the image store."""

from datetime import datetime

from sqlmodel import BigInteger, Field, Index

from hostler.contract.names import DEFAULT_PROJECT
from hostler.contract.resources import DiskFormat, ImageStatus
from models.base import Json, Table, UtcDateTime, Uuid, enumerated, now


class Image(Table, table=True):
    """An image; usable once it is `active`. `checksum` is SHA-256, `properties` a contract `ImageProperties`.

    Owner: the image's own workflow (`image:<id>`) while it is being imported, the catalogue calls afterwards.
    """

    __table_args__ = (Index(None, "project", "name"),)

    id: str = Field(primary_key=True, sa_type=Uuid)
    name: str
    project: str = DEFAULT_PROJECT
    status: ImageStatus = Field(default=ImageStatus.SAVING, sa_type=enumerated(ImageStatus))
    disk_format: DiskFormat = Field(sa_type=enumerated(DiskFormat))
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    virtual_size_bytes: int = Field(default=0, sa_type=BigInteger)
    checksum: str = ""
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: dict[str, str | None] = Field(default_factory=dict, sa_type=Json)
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)
