"""Volumes, by themselves and under servers: made, served, given back."""

from typing import Any
from uuid import uuid4

import pytest

from hostler.contract.errors import Conflict, NotFound, OperationFailed, QuotaExceeded
from hostler.contract.servers import BlockDeviceMapping
from tests.cloud import DEMO, Cloud
from tests.workflows.conftest import StartCloud


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """A cloud whose first host keeps volumes."""
    return await start_cloud(volumes=True)


def new_root(**changes: object) -> dict[str, Any]:
    """A boot from a volume that is made from the image."""
    fields = {"source_type": "image", "destination_type": "volume", "boot_index": 0, "volume_size": 1}
    return {"image": DEMO, "block_devices": [BlockDeviceMapping.model_validate(fields | changes)]}


def attach(volume_id: str, **changes: object) -> dict[str, Any]:
    """A boot with an existing volume."""
    fields = {"source_type": "volume", "destination_type": "volume", "uuid": volume_id}
    return {"block_devices": [BlockDeviceMapping.model_validate(fields | changes)]}


async def image_id(cloud: Cloud) -> str:
    """The UUID of the image."""
    return (await cloud.client.images.show(DEMO)).id


async def test_a_volume_is_made_and_deleted(cloud: Cloud) -> None:
    before = await cloud.world()

    volume = await cloud.client.volumes.create("data", size_gib=1)

    assert (volume.status, volume.host, volume.server_id) == ("available", "sim-1", None)
    assert (await cloud.world()).volume_files == {f"{volume.id}.raw"}
    await cloud.client.volumes.delete(volume.id)
    assert await cloud.world() == before


async def test_a_volume_is_made_from_an_image(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create("root", size_gib=1, image=DEMO)
    assert (volume.status, volume.image_id) == ("available", await image_id(cloud))


@pytest.mark.parametrize("step", ["accept_volume", "create_volume_data"])
async def test_a_volume_that_cannot_be_made_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    cloud.stage.fail(step, ValueError("no"), afterwards=True)

    with pytest.raises(OperationFailed, match="no"):
        await cloud.client.volumes.create(size_gib=1)

    assert await cloud.world() == before


async def test_a_volume_whose_host_is_silent_is_not_made(cloud: Cloud) -> None:
    await cloud.stop_host("sim-1")
    before = await cloud.world()

    with pytest.raises(OperationFailed, match="host sim-1 does not answer"):
        await cloud.client.volumes.create(size_gib=1)

    assert (await cloud.world()).volumes == before.volumes
    await cloud.start_host("sim-1")
    assert await cloud.world() == before


async def test_the_quota_of_volumes_holds(cloud: Cloud) -> None:
    await cloud.client.quotas.set(volume_gib=1)
    await cloud.client.volumes.create(size_gib=1)
    before = await cloud.world()

    with pytest.raises(QuotaExceeded):
        await cloud.client.volumes.create(size_gib=1)

    assert await cloud.world() == before


async def test_what_is_not_there_cannot_be_deleted(cloud: Cloud) -> None:
    with pytest.raises(NotFound):
        await cloud.client.volumes.delete(str(uuid4()))


async def test_a_server_boots_from_a_new_volume_which_goes_with_it_if_it_shall(cloud: Cloud) -> None:
    before = await cloud.world()
    options = new_root(uuid=await image_id(cloud), delete_on_termination=True) | {"image": None}

    server = await cloud.booted(**options)

    [device] = server.devices
    assert (device.device, device.kind) == ("vda", "root")
    world = await cloud.world()
    assert world.volumes == {(device.volume_id, "in-use", server.id)}
    assert world.exports == {f"volume-{device.volume_id}"}
    await cloud.deleted(server.id)
    assert await cloud.world() == before


async def test_a_volume_outlives_its_server_unless_told_otherwise(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create(size_gib=1)
    before = await cloud.world()
    server = await cloud.booted(**attach(volume.id))
    assert [d.device for d in server.devices] == ["vda", "vdb"]

    with pytest.raises(Conflict, match=r"in-use"):
        await cloud.client.volumes.delete(volume.id)
    await cloud.deleted(server.id)

    assert await cloud.world() == before


async def test_two_servers_cannot_have_the_same_volume(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create(size_gib=1)
    server = await cloud.booted(**attach(volume.id))
    before = await cloud.world()

    with pytest.raises(Conflict):
        await cloud.boot(**attach(volume.id))

    assert await cloud.world() == before
    assert (await cloud.client.volumes.show(volume.id)).server_id == server.id


async def test_the_slower_of_two_that_want_a_volume_gives_up_and_harms_nothing(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create(size_gib=1)
    before = await cloud.world()
    held = cloud.stage.hold("prep_block_devices")
    slow = await cloud.boot("slow", **attach(volume.id))
    await held.reached.wait()
    fast = await cloud.booted("fast", **attach(volume.id))
    held.go_on.set()

    assert isinstance(await cloud.failure(slow), Conflict)
    assert (await cloud.world()).exports == {f"volume-{volume.id}"}
    assert (await cloud.client.volumes.show(volume.id)).server_id == fast.id
    await cloud.deleted(slow.server_id)
    await cloud.deleted(fast.id)
    assert await cloud.world() == before


async def test_a_volume_is_kept_from_one_host_to_the_next(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", ValueError("not here"))

    server = await cloud.booted(**new_root(uuid=await image_id(cloud)) | {"image": None})

    assert server.host == "sim-2"
    assert cloud.stage.names().count("create_volume_data") == cloud.stage.names().count("export_volume") == 1
    assert cloud.stage.names().count("delete_volume_data") == 0


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["prep_block_devices", "create_volume_data", "export_volume", "spawn"])
async def test_a_boot_that_fails_discards_what_it_made_and_frees_what_it_took(cloud: Cloud, step: str) -> None:
    volume = await cloud.client.volumes.create(size_gib=1)
    before = await cloud.world()
    cloud.stage.fail(step, ValueError("no"), times=3, afterwards=True)
    blank = BlockDeviceMapping(source_type="blank", destination_type="volume", volume_size=1)
    existing = BlockDeviceMapping(
        source_type="volume", destination_type="volume", uuid=volume.id, delete_on_termination=True
    )

    boot = await cloud.boot(block_devices=[existing, blank])

    assert "no" in str(await cloud.failure(boot))
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["prep_block_devices", "create_volume_data", "export_volume", "activate"])
async def test_a_delete_in_the_middle_of_a_boot_gives_the_volumes_back(cloud: Cloud, step: str) -> None:
    volume = await cloud.client.volumes.create(size_gib=1)
    before = await cloud.world()
    blank = BlockDeviceMapping(
        source_type="blank", destination_type="volume", volume_size=1, delete_on_termination=True
    )
    held = cloud.stage.hold(step)
    boot = await cloud.boot(block_devices=[*attach(volume.id)["block_devices"], blank])
    await held.reached.wait()

    delete = await cloud.client.servers.delete(boot.server_id)
    held.go_on.set()
    await delete.result()

    assert await cloud.world() == before


async def test_a_silent_volume_host_owes_the_volume_of_a_deleted_server(cloud: Cloud) -> None:
    before = await cloud.world()
    options = new_root(uuid=await image_id(cloud), delete_on_termination=True) | {"image": None}
    server = await cloud.booted(host="sim-2", **options)
    await cloud.stop_host("sim-1")

    await cloud.deleted(server.id)

    assert (await cloud.world()).owed == {("sim-1", "delete_volume_data")}
    await cloud.start_host("sim-1")
    assert await cloud.world() == before


async def test_a_cloud_in_which_no_host_keeps_volumes_says_so(start_cloud: StartCloud) -> None:
    cloud = await start_cloud()
    before = await cloud.world()

    boot = await cloud.boot(
        block_devices=[BlockDeviceMapping(source_type="blank", destination_type="volume", volume_size=1)]
    )

    assert "keeps volumes" in str(await cloud.failure(boot))
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


async def test_a_volume_whose_uuid_is_taken_is_refused_and_the_one_that_has_it_stays(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create("data", size_gib=1)
    before = await cloud.world()

    with pytest.raises(Conflict, match="taken by another volume"):
        await cloud.client.volumes.create("other", size_gib=2, volume_id=volume.id)

    assert await cloud.world() == before
    assert await cloud.client.volumes.show(volume.id) == volume


async def test_a_volume_that_is_asked_for_again_is_the_same_one_and_is_not_touched(cloud: Cloud) -> None:
    volume = await cloud.client.volumes.create("data", size_gib=1)

    assert await cloud.client.volumes.create("data", size_gib=1, volume_id=volume.id) == volume

    assert cloud.stage.names().count("create_volume_data") == 1


async def test_a_volume_whose_data_is_there_is_finished_whatever_the_last_step_fails_with(cloud: Cloud) -> None:
    cloud.stage.fail("finish_volume", ValueError("no"), afterwards=True)

    assert (await cloud.client.volumes.create(size_gib=1)).status == "available"


async def test_a_volume_whose_deletion_has_begun_is_deleted_though_the_answer_was_lost_for_good(cloud: Cloud) -> None:
    before = await cloud.world()
    volume = await cloud.client.volumes.create("data", size_gib=1)
    cloud.stage.fail("begin_delete_volume", ValueError("lost"), afterwards=True)

    await cloud.client.volumes.delete(volume.id)

    assert await cloud.world() == before
