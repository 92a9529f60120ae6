"""Images: what is in the image store, and what was."""

from datetime import datetime

from sqlmodel import BigInteger, Field, Index, Session

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


class DeletedImage(Table, table=True):
    """An image that was deleted. Its UUID is for nothing but the same file again: guests' disks stand on copies of it.

    `checksum` is empty where it is not known. Nothing removes the row, also not an import of the same file.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    project: str
    checksum: str
    deleted_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)


def drop_image(session: Session, image_id: str) -> None:
    """Remove an image's row, if it is there. One that was active is known as deleted from now on."""
    row = session.get(Image, image_id, with_for_update=True)
    if row is None:
        return
    if row.status is ImageStatus.ACTIVE:
        session.merge(DeletedImage(id=row.id, project=row.project, checksum=row.checksum))
    session.delete(row)
