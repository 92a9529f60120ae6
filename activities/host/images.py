"""The host's image cache."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from temporalio import activity

from activities.interfaces import images as interface
from activities.interfaces.images import ImageId
from drivers.image.cache import ImageCache
from hostler.contract.errors import NotFound, RescheduleError
from hostler.contract.guests import GuestDisk, ImageRef

CACHE = "hostler_image_cache_requests"


class HostImages(interface.HostImages):
    """One download for each image, however many builds want it."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache

    @activity.defn(name="fetch_image")
    async def fetch_image(self, call: ImageRef) -> None:
        found = {"result": "hit" if self._cache.holds(call.id) else "miss"}
        activity.metric_meter().create_counter(CACHE, "Images that builds wanted of the host's cache.").add(1, found)
        await fetch(self._cache, call)

    @activity.defn(name="evict_image")
    async def evict_image(self, call: ImageId) -> None:
        await asyncio.to_thread(self._cache.remove, call.image_id)


async def base_image(cache: ImageCache, disks: Sequence[GuestDisk]) -> Path | None:
    """The cached image of a guest's root disk, fetched already but for a cache that was emptied meanwhile."""
    for disk in disks:
        if disk.image is not None and disk.volume_id is None:
            return await fetch(cache, disk.image)
    return None


async def fetch(cache: ImageCache, ref: ImageRef) -> Path:
    """The image's file, with progress in the heartbeat.

    Raises:
        RescheduleError: this host does not see the image in the store; another one may.
    """

    def report(done: int, total: int) -> None:
        activity.heartbeat(f"{done * 100 // max(total, 1)} % of {total // 2**20} MiB")

    try:
        return await cache.fetch(ref, report)
    except NotFound as error:
        raise RescheduleError(f"image {ref.id} is not in the store that this host sees", value=ref.id) from error
