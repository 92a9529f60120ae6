"""Images made of servers: their rows on the control worker, their content on the server's host."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.images import ImageId
from activities.interfaces.servers import Begin, ServerRef, Target
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat, ImageType


class BeginSnapshot(Begin):
    """Take a server, and enter its image to be as saving. `name` is the image's; empty: after the server."""

    image_id: str
    name: str
    image_type: ImageType
    backup_type: str | None = None


class SnapshotGuest(ServerRef):
    """Write the root disk of this server's guest."""

    image_id: str
    quiesce: bool = False


class SnapshotFile(BaseModel):
    """What a host has left for the store to take in."""

    image_id: str
    disk_format: DiskFormat


class RotateBackups(ServerRef):
    """Keep the `rotation` latest backups of this kind."""

    backup_type: str
    rotation: int


class Snapshots(ABC):
    """Owner of the rows of such images, while they are made."""

    @activity.defn(name="begin_snapshot")
    @abstractmethod
    def begin_snapshot(self, call: BeginSnapshot) -> Target:
        """Take the server, and insert the image's row.

        Raises:
            NotFound, InvalidState, ServerBusy; InvalidState: its root disk is a volume; Conflict: the UUID is taken.
        """

    @activity.defn(name="import_snapshot")
    @abstractmethod
    def import_snapshot(self, call: SnapshotFile) -> ImageRef:
        """Inspect what the host has left, and copy it into the store."""

    @activity.defn(name="rotate_backups")
    @abstractmethod
    def rotate_backups(self, call: RotateBackups) -> None:
        """Remove the backups that are too many, the oldest first."""


class HostSnapshots(ABC):
    """The host's half."""

    @activity.defn(name="snapshot_guest")
    @abstractmethod
    async def snapshot_guest(self, call: SnapshotGuest) -> SnapshotFile:
        """Leave the root disk's content where the store takes it in."""

    @activity.defn(name="discard_snapshot")
    @abstractmethod
    async def discard_snapshot(self, call: ImageId) -> None:
        """Remove what was left there."""
