"""The volumes whose data is on this host."""

from temporalio import activity

from activities.host.images import fetch
from activities.interfaces import block_devices as interface
from activities.interfaces.block_devices import VolumeRef
from drivers.image.cache import ImageCache
from drivers.volume.base import VolumeDriver
from hostler.contract.guests import VolumeConnection, VolumeSpec


class HostVolumes(interface.HostVolumes):
    """Made, served and removed here."""

    def __init__(self, volumes: VolumeDriver, images: ImageCache) -> None:
        self._volumes = volumes
        self._images = images

    @activity.defn(name="create_volume_data")
    async def create_volume_data(self, call: VolumeSpec) -> None:
        source = await fetch(self._images, call.image) if call.image else None
        await self._volumes.create(call, source, activity.heartbeat)

    @activity.defn(name="delete_volume_data")
    async def delete_volume_data(self, call: VolumeRef) -> None:
        await self._volumes.delete(call.volume_id)

    @activity.defn(name="export_volume")
    async def export_volume(self, call: VolumeRef) -> VolumeConnection:
        return await self._volumes.export(call.volume_id)

    @activity.defn(name="withdraw_volume")
    async def withdraw_volume(self, call: VolumeRef) -> None:
        await self._volumes.withdraw(call.volume_id)
