"""Block devices: their rows on the control worker, volumes on the hosts that keep them."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import HostRef, Limits, ServerRef
from hostler.contract.guests import GuestDisk, VolumeConnection, VolumeSpec
from hostler.contract.resources import Volume, VolumeCreate


class PrepareDevices(BaseModel):
    """The disks of a server, as its plan has them."""

    server_id: str
    run_id: str
    disks: list[GuestDisk]


class VolumeWork(BaseModel):
    """A volume to connect; `create` is what must be made first. `limits` bind an operation on it alone."""

    volume_id: str
    host: HostRef
    create: VolumeSpec | None = None
    limits: Limits = Limits()


class ReleaseDevices(ServerRef):
    """Free the server's volumes. A boot that is undone discards those that it made; a delete those it was asked to."""

    undo_boot: bool = False


class VolumeRef(BaseModel):
    """One volume."""

    volume_id: str


class AcceptVolume(BaseModel):
    """A volume that asks to be made."""

    request: VolumeCreate


class BlockDevices(ABC):
    """Owner of the block device and volume rows."""

    @activity.defn(name="prep_block_devices")
    @abstractmethod
    def prep_block_devices(self, call: PrepareDevices) -> list[VolumeWork]:
        """Write the mappings, reserve existing volumes, place new ones."""

    @activity.defn(name="release_block_devices")
    @abstractmethod
    def release_block_devices(self, call: ReleaseDevices) -> None:
        """Remove the mappings and free or forget the volumes."""

    @activity.defn(name="accept_volume")
    @abstractmethod
    def accept_volume(self, call: AcceptVolume) -> VolumeWork:
        """Validate, check the quota, choose the host that keeps the volume and insert the row."""

    @activity.defn(name="finish_volume")
    @abstractmethod
    def finish_volume(self, call: VolumeRef) -> Volume:
        """The volume's data is there: available."""

    @activity.defn(name="begin_delete_volume")
    @abstractmethod
    def begin_delete_volume(self, call: VolumeRef) -> VolumeWork:
        """Take the volume for deletion.

        Raises:
            NotFound; Conflict: a server uses it.
        """

    @activity.defn(name="forget_volume")
    @abstractmethod
    def forget_volume(self, call: VolumeRef) -> None:
        """Remove the row."""


class HostVolumes(ABC):
    """The volumes whose data is on this host."""

    @activity.defn(name="create_volume_data")
    @abstractmethod
    async def create_volume_data(self, call: VolumeSpec) -> None:
        """Make the data: blank or from an image."""

    @activity.defn(name="delete_volume_data")
    @abstractmethod
    async def delete_volume_data(self, call: VolumeRef) -> None:
        """Remove data and export."""

    @activity.defn(name="export_volume")
    @abstractmethod
    async def export_volume(self, call: VolumeRef) -> VolumeConnection:
        """Serve it."""

    @activity.defn(name="withdraw_volume")
    @abstractmethod
    async def withdraw_volume(self, call: VolumeRef) -> None:
        """Serve it no longer."""
