"""The import of images."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from hostler import Client
from hostler.contract.errors import Conflict, ImageRejected, InvalidRequest, OperationFailed
from hostler.contract.names import image_workflow_id
from hostler.contract.resources import DiskFormat
from models import Image
from tests.cloud import Cloud


def rows(cloud: Cloud, image_id: str) -> Image | None:
    """The image's row."""
    with cloud.database.read() as session:
        return session.get(Image, image_id)


def stored(cloud: Cloud) -> set[str]:
    """What is in the store."""
    return {file.name for file in cloud.settings.images_dir.iterdir()}


async def test_an_image_is_imported(cloud: Cloud, disk: Path) -> None:
    image = await cloud.client.images.create("mine", disk)

    assert (image.status, image.virtual_size_bytes) == ("active", 64 * 2**20)
    assert image.id in stored(cloud)
    assert (await cloud.booted(image="mine")).image_id == image.id


async def test_a_file_that_is_no_image_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    before = stored(cloud)
    file = tmp_path / "bad.qcow2"
    file.write_bytes(b"nothing of the sort" * 100)
    image_id = str(uuid4())

    with pytest.raises(ImageRejected):
        await cloud.client.images.create("bad", file, image_id=image_id)

    assert (rows(cloud, image_id), stored(cloud)) == (None, before)


async def test_a_file_that_is_not_there_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    image_id = str(uuid4())
    with pytest.raises(InvalidRequest):
        await cloud.client.images.create("none", tmp_path / "none", image_id=image_id)
    assert rows(cloud, image_id) is None


@pytest.mark.parametrize("step", ["accept_image", "import_image"])
async def test_an_import_that_breaks_leaves_nothing(cloud: Cloud, disk: Path, step: str) -> None:
    before = stored(cloud)
    image_id = str(uuid4())
    cloud.stage.fail(step, ValueError("it broke"))

    with pytest.raises(OperationFailed, match="it broke"):
        await cloud.client.images.create("mine", disk, image_id=image_id)

    assert (rows(cloud, image_id), stored(cloud)) == (None, before)


@pytest.mark.parametrize("step", ["accept_image", "import_image"])
async def test_an_import_that_is_cancelled_ends_with_a_whole_image_or_none(cloud: Cloud, disk: Path, step: str) -> None:
    before = stored(cloud)
    image_id = str(uuid4())
    held = cloud.stage.hold(step)
    importing = asyncio.create_task(cloud.client.images.create("mine", disk, image_id=image_id))
    await held.reached.wait()

    await cloud.temporal.get_workflow_handle(image_workflow_id(image_id)).cancel()
    held.go_on.set()
    await asyncio.wait([importing])

    row = rows(cloud, image_id)
    assert row is None or row.status == "active"
    assert stored(cloud) - before == ({image_id} if row else set())
    assert (importing.exception() is None) == (row is not None)


async def test_an_image_that_was_published_is_not_lost_with_the_answer(cloud: Cloud, disk: Path) -> None:
    cloud.stage.fail("publish_image", ValueError("it broke"), afterwards=True)

    image = await cloud.client.images.create("mine", disk)

    assert (await cloud.client.images.show("mine")) == image
    assert image.id in stored(cloud)


async def test_the_uuid_of_an_image_is_its_own(cloud: Cloud, disk: Path) -> None:
    image = await cloud.client.images.create("mine", disk)

    with pytest.raises(Conflict):
        await cloud.client.images.create("another", disk, image_id=image.id)

    assert await cloud.client.images.show("mine") == image
    assert image.id in stored(cloud)


async def test_the_uuid_of_a_deleted_image_is_given_to_no_other_file_and_no_other_project(
    cloud: Cloud, disk: Path, tmp_path: Path
) -> None:
    image = await cloud.client.images.create("mine", disk)
    await cloud.client.images.delete("mine")
    before = stored(cloud)
    other = tmp_path / "other.raw"
    other.write_bytes(b"x" * 2**20)

    with pytest.raises(ImageRejected, match="was another file") as refused:
        await cloud.client.images.create("mine", other, disk_format="raw", image_id=image.id)
    async with await Client.connect(cloud.settings, project="theirs") as stranger:
        with pytest.raises(Conflict, match="of another project"):
            await stranger.images.create("mine", disk, image_id=image.id)

    assert (refused.value.detail.field, refused.value.detail.value) == ("checksum", image.checksum)
    assert (rows(cloud, image.id), stored(cloud)) == (None, before)
    again = await cloud.client.images.create("mine", disk, image_id=image.id)
    assert (again.id, again.checksum) == (image.id, image.checksum)


async def test_imports_of_the_same_image_at_once_are_one(cloud: Cloud, disk: Path) -> None:
    image_id = str(uuid4())
    images = await asyncio.gather(*(cloud.client.images.create("mine", disk, image_id=image_id) for _ in range(3)))
    assert images[0] == images[1] == images[2]
    assert cloud.stage.names().count("import_image") == 1


async def test_an_image_that_is_being_imported_is_not_deleted(cloud: Cloud, disk: Path) -> None:
    held = cloud.stage.hold("import_image")
    importing = asyncio.create_task(cloud.client.images.create("mine", disk))
    await held.reached.wait()

    with pytest.raises(Conflict, match="still being imported") as refused:
        await cloud.client.images.delete("mine")

    assert "cancel the workflow image:" in str(refused.value.detail.remedy)
    held.go_on.set()
    assert (await importing).status == "active"


async def test_an_image_that_nothing_imports_any_more_can_be_deleted(cloud: Cloud) -> None:
    image_id = str(uuid4())
    row = Image(id=image_id, name="lost", project="default", disk_format=DiskFormat.RAW)
    cloud.database.run(lambda session: session.add(row))

    await cloud.client.images.delete("lost")

    assert rows(cloud, image_id) is None
