"""The host's images, fetched from a store that it may not see."""

from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.host.images import HostImages
from drivers.image.cache import ImageCache
from drivers.image.local import LocalImageStore
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat
from tests.activities.given import uuid


async def test_an_image_is_fetched_once_and_its_progress_told(tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(2**20))
    store, image_id = LocalImageStore(tmp_path / "store"), uuid()
    stored = store.add(image_id, file, DiskFormat.RAW, None, lambda done, total: None)
    ref = ImageRef(id=image_id, disk_format=DiskFormat.RAW, **stored.model_dump())
    cache = ImageCache(tmp_path / "cache", store)
    environment = ActivityEnvironment()
    told: list[str] = []
    environment.on_heartbeat = told.append

    for _ in range(2):
        await environment.run(HostImages(cache).fetch_image, ref)

    assert cache.cached() == [image_id]
    assert told[:1] == ["100 % of 1 MiB"]
    await cache.close()


async def test_an_image_that_this_host_does_not_see_may_be_seen_by_another(tmp_path: Path) -> None:
    ref = ImageRef(id=uuid(), disk_format=DiskFormat.RAW, size_bytes=1, virtual_size_bytes=1, checksum="")
    cache = ImageCache(tmp_path / "cache", LocalImageStore(tmp_path / "store"))
    with pytest.raises(RescheduleError, match="not in the store"):
        await ActivityEnvironment().run(HostImages(cache).fetch_image, ref)
    await cache.close()
