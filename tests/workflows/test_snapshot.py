"""Snapshot and backup: an image of a server's root disk, and nothing else has changed."""

from pathlib import Path

import pytest

import workers.host
import workflows.imaging
from drivers.hypervisor.simulated import SimulatedHypervisor
from hostler.client import Operation
from hostler.contract.errors import (
    Cancelled,
    Conflict,
    InvalidState,
    NotFound,
    OperationFailed,
    ServerBusy,
)
from hostler.contract.resources import DiskFormat, Image
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from models import Image as Row
from tests.cloud import DEMO, LIMIT, Cloud, World, breaks
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_audit import audit
from tests.workflows.test_move import FOR_GOOD, content, impatient, power_on
from tests.workflows.test_volume import image_id, new_root

PREFIX = b"hostler simulated disk "
UNDONE = ("snapshot_guest", "import_snapshot")
"""The steps before the point of no return that a caller who was told that it is accepted waits for."""


async def snapshot(cloud: Cloud, server: Server, name: str = "web-1") -> Image:
    """The image, made."""
    operation = await cloud.client.servers.snapshot(server.id, name)
    await operation.result(LIMIT)
    assert operation.image_id is not None
    return await cloud.client.images.show(operation.image_id)


async def backup(cloud: Cloud, server: Server, name: str, rotation: int, kind: str = "daily") -> Server:
    """The server, once the backup is made."""
    operation = await cloud.client.servers.backup(server.id, name, backup_type=kind, rotation=rotation)
    return await operation.result(LIMIT)


async def images(cloud: Cloud) -> list[str]:
    """The names of all images but the one that is always there."""
    return [image.name for image in await cloud.client.images.list() if image.name != DEMO]


def file_of(cloud: Cloud, image_id: str | None) -> Path:
    """Where the store keeps an image."""
    return cloud.settings.images_dir / str(image_id)


async def unchanged(cloud: Cloud, server: Server, before: World) -> None:
    """The server runs on, and nothing is left of the try."""
    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before
    assert await images(cloud) == []
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING


async def test_a_snapshot_is_an_active_image_of_what_the_servers_disk_holds(cloud: Cloud) -> None:
    server = await cloud.booted()

    image = await snapshot(cloud, server)

    assert (image.name, image.status, image.disk_format) == ("web-1", "active", DiskFormat.RAW)
    assert image.properties.model_dump(exclude_none=True) == {"image_type": "snapshot", "instance_uuid": server.id}
    file = file_of(cloud, image.id)
    assert file.read_bytes().startswith(PREFIX + content(cloud, "sim-1", server).encode() + b"\n")
    assert image.size_bytes == file.stat().st_size


async def test_it_asks_of_hosts_and_flavors_what_the_servers_own_image_asked(cloud: Cloud) -> None:
    with cloud.database.write() as session:
        demo = session.get_one(Row, (await cloud.client.images.show(DEMO)).id)
        demo.min_disk_gib, demo.min_ram_mib = 1, 64
        demo.properties = {"hypervisor_type": "simulated"}
    server = await cloud.booted()

    image = await snapshot(cloud, server)

    assert (image.min_disk_gib, image.min_ram_mib, image.properties.hypervisor_type) == (1, 64, "simulated")


@pytest.mark.parametrize("off", [False, True])
async def test_the_server_goes_on_as_it_was_beside_its_image(cloud: Cloud, off: bool) -> None:
    server = await cloud.booted()
    if off:
        server = await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    power = await power_on(cloud, "sim-1", server)
    before = await cloud.world()

    image = await snapshot(cloud, server)

    assert await cloud.client.servers.show(server.id) == server
    assert await power_on(cloud, "sim-1", server) is power
    assert (await cloud.world()).images == before.images | {image.id}
    assert (await audit(cloud)).findings == []
    await cloud.client.images.delete(image.id)
    assert await cloud.world() == before


async def test_a_server_that_boots_from_it_has_the_same_disk_on_whichever_host(cloud: Cloud) -> None:
    server = await cloud.booted()
    image = await snapshot(cloud, server)

    copy = await cloud.booted("copy", image=image.id, host="sim-2")

    assert content(cloud, "sim-2", copy) == content(cloud, "sim-1", server)


async def test_meanwhile_the_server_is_busy_and_its_image_cannot_be_deleted(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("import_snapshot")
    operation = await cloud.client.servers.snapshot(server.id, "web-1")
    await held.reached.wait()
    assert operation.image_id is not None

    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.task_state) == ("ACTIVE", "image_snapshot")
    assert (await cloud.client.images.show(operation.image_id)).status == "saving"
    with pytest.raises(ServerBusy, match="snapshot"):
        await cloud.client.servers.stop(server.id)
    with pytest.raises(Conflict, match="being made of its server"):
        await cloud.client.images.delete(operation.image_id)

    held.go_on.set()
    await operation.result(LIMIT)
    assert (await cloud.client.images.show(operation.image_id)).status == "active"


async def test_the_same_request_makes_one_image(cloud: Cloud) -> None:
    server = await cloud.booted()

    first, second = [await cloud.client.servers.snapshot(server.id, "web-1", request_id="one") for _ in range(2)]

    assert (first.run_id, first.image_id) == (second.run_id, second.image_id)
    await second.result(LIMIT)
    assert await images(cloud) == ["web-1"]


# Refusals.


async def test_a_guest_without_an_agent_is_not_frozen_and_the_snapshot_that_insists_leaves_nothing(
    cloud: Cloud,
) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    failure = await cloud.failure(await cloud.client.servers.snapshot(server.id, "web-1", quiesce=True))

    assert isinstance(failure, InvalidState)
    assert failure.detail.field == "quiesce"
    await unchanged(cloud, server, before)


async def test_a_uuid_that_is_taken_is_refused_and_the_image_that_has_it_stays(cloud: Cloud) -> None:
    server = await cloud.booted()
    demo = await cloud.client.images.show(DEMO)
    before = await cloud.world()

    with pytest.raises(Conflict, match="taken by image demo"):
        await cloud.client.servers.snapshot(server.id, "web-1", image_id=demo.id)

    assert await cloud.client.images.show(DEMO) == demo
    await unchanged(cloud, server, before)


async def test_an_image_that_was_made_is_not_made_again_under_its_uuid(cloud: Cloud) -> None:
    server = await cloud.booted()
    image = await snapshot(cloud, server)
    before = await cloud.world()

    with pytest.raises(Conflict):
        await cloud.client.servers.snapshot(server.id, "web-2", image_id=image.id)

    assert await cloud.client.images.show(image.id) == image
    assert await cloud.world() == before


async def test_a_file_in_the_store_whose_row_was_lost_is_no_servers_image_and_stays(cloud: Cloud) -> None:
    server = await cloud.booted()
    lost = file_of(cloud, "00000000-0000-4000-8000-000000001234")
    lost.write_text("somebody's")
    before = await cloud.world()

    with pytest.raises(Conflict, match="taken by a file in the image store"):
        await cloud.client.servers.snapshot(server.id, "web-1", image_id=lost.name)

    assert lost.read_text() == "somebody's"
    await unchanged(cloud, server, before)


async def test_of_a_root_disk_that_is_a_volume_no_image_is_made(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    server = await cloud.booted(**new_root(uuid=await image_id(cloud)) | {"image": None})
    before = await cloud.world()

    with pytest.raises(InvalidState, match="is a volume"):
        await cloud.client.servers.snapshot(server.id, "web-1")

    await unchanged(cloud, server, before)


# Failures.


@pytest.mark.sampled
@pytest.mark.parametrize("step", UNDONE)
@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_step_that_fails_leaves_nothing(cloud: Cloud, step: str, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=afterwards)

    failure = await cloud.failure(await cloud.client.servers.snapshot(server.id, "web-1"))

    assert isinstance(failure, OperationFailed)
    await unchanged(cloud, server, before)


@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_begin_that_fails_for_good_leaves_nothing(cloud: Cloud, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail("begin_snapshot", FOR_GOOD, afterwards=afterwards)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.snapshot(server.id, "web-1")

    await unchanged(cloud, server, before)


async def test_a_begin_that_fails_for_good_does_not_touch_an_image_that_somebody_imports_under_its_uuid(
    cloud: Cloud,
) -> None:
    server = await cloud.booted()
    theirs = "00000000-0000-4000-8000-000000001234"
    cloud.add(Row(id=theirs, name="theirs", disk_format=DiskFormat.RAW))
    cloud.stage.fail("begin_snapshot", FOR_GOOD)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.snapshot(server.id, "web-1", image_id=theirs)

    assert (await cloud.client.images.show(theirs)).name == "theirs"


async def test_a_host_that_cannot_snapshot_leaves_the_server_as_it_was(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-1", "snapshot")])
    server = await cloud.booted()
    before = await cloud.world()

    failure = await cloud.failure(await cloud.client.servers.snapshot(server.id, "web-1"))

    assert "snapshot broke on sim-1" in str(failure)
    await unchanged(cloud, server, before)


async def test_steps_whose_answers_were_lost_are_done_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    for step in ("begin_snapshot", *UNDONE, "discard_snapshot", "publish_image", "settle"):
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    image = await snapshot(cloud, server)

    assert (await cloud.world()).images == before.images | {image.id}
    assert await cloud.client.servers.show(server.id) == server


@pytest.mark.parametrize("step", UNDONE)
async def test_a_snapshot_that_is_cancelled_leaves_nothing(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    operation = await cancelled_at(cloud, server, step)

    assert isinstance(await cloud.failure(operation), Cancelled)

    await unchanged(cloud, server, before)


@pytest.mark.parametrize("step", ["discard_snapshot", "publish_image", "settle"])
async def test_once_its_image_is_in_the_store_it_ends_as_asked(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    operation = await cancelled_at(cloud, server, step)

    assert await operation.result(LIMIT) == server

    assert await images(cloud) == ["web-1"]


async def cancelled_at(cloud: Cloud, server: Server, step: str) -> Operation:
    """A snapshot that is cancelled while the step runs."""
    held = cloud.stage.hold(step)
    operation = await cloud.client.servers.snapshot(server.id, "web-1")
    await held.reached.wait()
    await operation.cancel()
    held.go_on.set()
    return operation


@pytest.mark.parametrize("step", UNDONE)
async def test_a_delete_in_the_middle_leaves_neither_server_nor_image(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    await cloud.client.servers.snapshot(server.id, "web-1")
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await delete.result(LIMIT)

    assert await cloud.world() == before
    assert await images(cloud) == []


async def test_the_image_outlives_its_server(cloud: Cloud) -> None:
    server = await cloud.booted()
    image = await snapshot(cloud, server)

    await cloud.deleted(server.id)

    assert await cloud.client.images.show(image.id) == image
    assert (await cloud.booted("copy", image=image.id)).status == "ACTIVE"


async def test_a_silent_host_is_named_and_the_server_is_as_before(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(await cloud.client.servers.snapshot(server.id, "web-1"))

    assert "host sim-1 does not answer" in str(failure)
    await cloud.start_host("sim-1")
    await unchanged(cloud, server, before)


async def test_a_host_that_goes_after_it_wrote_the_file_owes_its_removal_and_the_image_is_there(
    cloud: Cloud,
) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    held = cloud.stage.hold("import_snapshot")
    operation = await cloud.client.servers.snapshot(server.id, "web-1")
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    held.go_on.set()

    assert await operation.result(LIMIT) == server

    assert (await cloud.world()).owed == {("sim-1", "discard_snapshot")}
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert (world.owed, world.images) == (frozenset(), before.images | {str(operation.image_id)})


# Backups.


async def test_a_backup_is_an_image_of_its_kind(cloud: Cloud) -> None:
    server = await cloud.booted()

    assert await backup(cloud, server, "monday", rotation=1) == server

    image = await cloud.client.images.show("monday")
    assert image.properties.model_dump(exclude_none=True) == {
        "image_type": "backup",
        "backup_type": "daily",
        "instance_uuid": server.id,
    }


async def test_the_latest_of_a_kind_are_kept_and_the_oldest_removed_with_their_files(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    for name in ("monday", "tuesday", "wednesday"):
        await backup(cloud, server, name, rotation=2)

    assert await images(cloud) == ["tuesday", "wednesday"]
    assert len((await cloud.world()).images - before.images) == 2
    await backup(cloud, server, "thursday", rotation=1)
    assert await images(cloud) == ["thursday"]


async def test_a_rotation_of_none_keeps_none(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await backup(cloud, server, "monday", rotation=5)

    await backup(cloud, server, "tuesday", rotation=0)

    await unchanged(cloud, server, before)


async def test_other_kinds_other_servers_and_snapshots_are_not_counted(cloud: Cloud) -> None:
    server, other = await cloud.booted(), await cloud.booted("other")
    await backup(cloud, server, "weekly", rotation=1, kind="weekly")
    await backup(cloud, other, "theirs", rotation=1)
    await snapshot(cloud, server, "snapshot")

    for name in ("monday", "tuesday"):
        await backup(cloud, server, name, rotation=1)

    assert await images(cloud) == ["snapshot", "theirs", "tuesday", "weekly"]


async def test_a_backup_that_fails_removes_no_former_one(cloud: Cloud) -> None:
    server = await cloud.booted()
    await backup(cloud, server, "monday", rotation=1)
    before = await cloud.world()
    cloud.stage.fail("import_snapshot", FOR_GOOD, afterwards=True)

    operation = await cloud.client.servers.backup(server.id, "tuesday", backup_type="daily", rotation=1)
    await cloud.failure(operation)

    assert await images(cloud) == ["monday"]
    assert await cloud.world() == before


async def test_a_rotation_whose_answer_was_lost_is_done_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    await backup(cloud, server, "monday", rotation=1)
    cloud.stage.fail("rotate_backups", OSError("lost"), afterwards=True)

    assert await backup(cloud, server, "tuesday", rotation=1) == server

    assert await images(cloud) == ["tuesday"]


async def test_a_server_that_is_not_there_has_no_backup(cloud: Cloud) -> None:
    with pytest.raises(NotFound):
        await cloud.client.servers.backup("nothing", "monday", backup_type="daily", rotation=1)


async def test_a_try_that_comes_when_the_image_is_made_writes_no_file(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows.imaging, "SNAPSHOT_GUEST", impatient(workflows.imaging.SNAPSHOT_GUEST))
    server = await cloud.booted()
    held = cloud.stage.hold("snapshot_guest")

    image = await snapshot(cloud, server)
    held.go_on.set()
    await eventually(lambda: not cloud.stage.under_way)

    assert cloud.stage.names().count("snapshot_guest") == 2
    assert list(cloud.settings.images_dir.rglob(image.id)) == [file_of(cloud, image.id)]


async def test_a_guest_that_one_left_frozen_is_seen_to_as_long_as_its_hosts_worker_runs(
    start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def restore(self: SimulatedHypervisor) -> dict[str, str]:
        asked.append(self)
        return {}

    monkeypatch.setattr(SimulatedHypervisor, "restore", restore)
    monkeypatch.setattr(workers.host, "RESTORE_SECONDS", 0.01)
    cloud = await start_cloud()
    await eventually(lambda: all(asked.count(machine.hypervisor) > 1 for machine in cloud.machines))
