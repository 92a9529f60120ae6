"""Shelve, offload and unshelve: the server rests as an image, and comes back as it was."""

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest

from hostler.client import Operation
from hostler.contract.errors import (
    Cancelled,
    Conflict,
    HostlerError,
    InvalidRequest,
    InvalidState,
    NotFound,
    NoValidHost,
    OperationFailed,
)
from hostler.contract.servers import NEVER, Server
from hostler.contract.states import PowerState, VmState
from hostler.settings import OperationSettings
from models import Host, Image, bump_generation
from tests.cloud import DEMO, LIMIT, Cloud, World, breaks, refuses
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_audit import audit
from tests.workflows.test_move import FOR_GOOD, content, power_on
from tests.workflows.test_volume import attach, image_id, new_root

SOON = timedelta(seconds=1)
BEFORE_THE_IMAGE = ("stop_guest", "snapshot_guest", "import_snapshot")
PLACED = ("schedule", "claim_resources", "fetch_image", "bind_ports", "spawn", "resume_guest")
LEAVING = {("sim-1", "destroy_guest"), ("sim-1", "unbind_ports"), ("sim-1", "drop_claim")}


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """Two hosts, of which sim-1 is the scheduler's choice, however late it learns what has left it."""
    return prefer_sim_1(await start_cloud())


def prefer_sim_1(cloud: Cloud) -> Cloud:
    """The other hosts have much less memory to give."""
    with cloud.database.write() as session:
        for machine in cloud.machines[1:]:
            session.get_one(Host, machine.id).reserved_ram_mib = 1024
            bump_generation(session, machine.id)
    return cloud


async def done(operation: Operation) -> Server:
    """The server, once the operation has ended."""
    return await operation.result(LIMIT)


async def shelved(cloud: Cloud, server: Server, **options: Any) -> Server:
    return await done(await cloud.client.servers.shelve(server.id, **options))


async def offloaded(cloud: Cloud, server: Server) -> Server:
    return await done(await cloud.client.servers.shelve_offload(server.id))


async def unshelved(cloud: Cloud, server: Server, **options: Any) -> Server:
    return await done(await cloud.client.servers.unshelve(server.id, **options))


async def images(cloud: Cloud) -> list[str]:
    """The names of all images but the one that is always there."""
    return [image.name for image in await cloud.client.images.list() if image.name != DEMO]


async def unchanged(cloud: Cloud, server: Server, before: World) -> None:
    """It is what it was, with nothing left of the try."""
    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before


async def running(cloud: Cloud, server: Server, before: World) -> None:
    """The same, and it runs."""
    await unchanged(cloud, server, before)
    assert await images(cloud) == []
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING


# Onto the shelf.


async def test_a_shelved_server_has_an_image_and_its_addresses_and_nothing_of_a_host(cloud: Cloud) -> None:
    server = await cloud.booted()
    before, disk = await cloud.world(), content(cloud, "sim-1", server)

    shown = await shelved(cloud, server)

    assert (shown.status, shown.host, shown.power_state) == ("SHELVED_OFFLOADED", None, "nostate")
    assert (shown.addresses, shown.devices) == (server.addresses, server.devices)
    assert shown.shelved_at is not None
    image = await cloud.client.images.show(str(shown.shelved_image_id))
    assert (image.name, image.status, image.properties.image_type) == ("web-shelved", "active", "shelved")
    assert disk.encode() in (cloud.settings.images_dir / image.id).read_bytes()
    world = await cloud.world()
    assert not world.allocations | world.claims | world.guests | world.bound_ports
    assert (world.ports, world.quota, world.block_devices) == (before.ports, before.quota, before.block_devices)
    assert world.images == before.images | {image.id}
    assert (await audit(cloud)).findings == []


async def test_a_stopped_server_is_shelved_too(cloud: Cloud) -> None:
    server = await cloud.booted()
    await done(await cloud.client.servers.stop(server.id))

    assert (await shelved(cloud, server)).status == "SHELVED_OFFLOADED"


async def test_it_may_keep_its_host_and_leave_it_when_it_is_told_to(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    shown = await shelved(cloud, server, offload_after=NEVER)

    assert (shown.status, shown.host, shown.power_state) == ("SHELVED", "sim-1", "shutdown")
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN
    world = await cloud.world()
    assert (world.allocations, world.claims, world.bound_ports) == (
        before.allocations,
        before.claims,
        before.bound_ports,
    )
    assert world.workflows == frozenset()
    assert (await audit(cloud)).findings == []

    left = await offloaded(cloud, server)

    assert left == shown.model_copy(
        update={
            "status": "SHELVED_OFFLOADED",
            "vm_state": VmState.SHELVED_OFFLOADED,
            "power_state": PowerState.NOSTATE,
            "host": None,
            "host_id": None,
        }
    )
    world = await cloud.world()
    assert not world.allocations | world.claims | world.guests | world.bound_ports
    assert (await audit(cloud)).findings == []


async def test_the_settings_say_when_it_leaves_where_the_request_does_not(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=OperationSettings(offload_after=NEVER))
    server = await cloud.booted()

    assert (await shelved(cloud, server)).status == "SHELVED"


async def test_it_leaves_its_host_by_itself_when_its_time_has_come(cloud: Cloud) -> None:
    server = await cloud.booted()

    assert (await shelved(cloud, server, offload_after=SOON)).status == "SHELVED"

    await cloud.becomes(server.id, "SHELVED_OFFLOADED")
    world = await cloud.world()
    assert not world.allocations | world.claims | world.guests


async def test_what_was_unshelved_and_shelved_again_does_not_leave_when_the_first_time_has_come(cloud: Cloud) -> None:
    server = await cloud.booted()
    await shelved(cloud, server, offload_after=timedelta(seconds=2))
    await unshelved(cloud, server)
    await shelved(cloud, server, offload_after=NEVER)

    await cloud.temporal.get_workflow_handle(f"later:{server.id}").result()

    assert (await cloud.client.servers.show(server.id)).status == "SHELVED"


async def test_a_later_time_takes_the_place_of_an_earlier_one(cloud: Cloud) -> None:
    server = await cloud.booted()
    await shelved(cloud, server, offload_after=timedelta(hours=1))
    await unshelved(cloud, server)

    await shelved(cloud, server, offload_after=SOON)

    await cloud.becomes(server.id, "SHELVED_OFFLOADED")


async def test_a_time_that_comes_before_the_shelve_has_ended_is_not_lost(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("finish_shelve")
    shelve = await cloud.client.servers.shelve(server.id, offload_after=timedelta(milliseconds=1))
    await held.reached.wait()
    await eventually(lambda: "ask_for_operation" in cloud.stage.names())
    await eventually(lambda: "ask_for_operation" not in [one.name for one in cloud.stage.under_way])
    held.go_on.set()
    await done(shelve)

    assert f"later:{server.id}" in (await cloud.world()).workflows


async def test_a_server_whose_disk_is_a_volume_is_shelved_without_an_image_and_leaves_at_once(
    start_cloud: StartCloud,
) -> None:
    cloud = prefer_sim_1(await start_cloud(volumes=True))
    server = await cloud.booted(**new_root(uuid=await image_id(cloud)) | {"image": None})
    before = await cloud.world()

    shown = await shelved(cloud, server, offload_after=NEVER)

    assert (shown.status, shown.shelved_image_id) == ("SHELVED_OFFLOADED", None)
    world = await cloud.world()
    assert not world.allocations | world.claims | world.guests | world.exports
    assert (world.volumes, world.volume_files, world.images) == (before.volumes, before.volume_files, before.images)
    assert (await audit(cloud)).findings == []

    back = await unshelved(cloud, server)

    assert back == server
    assert await cloud.world() == before


async def test_its_volumes_stay_its_own_and_come_back_with_it(start_cloud: StartCloud) -> None:
    cloud = prefer_sim_1(await start_cloud(volumes=True))
    volume = await cloud.client.volumes.create(size_gib=1)
    options = attach(volume.id, delete_on_termination=True)
    server = await cloud.booted(**options)
    before = await cloud.world()

    await shelved(cloud, server)

    world = await cloud.world()
    assert (world.volumes, world.volume_files, world.exports) == (before.volumes, before.volume_files, frozenset())
    with pytest.raises(Conflict, match="in-use"):
        await cloud.client.volumes.delete(volume.id)
    assert await unshelved(cloud, server) == server
    assert await cloud.world() == before


@pytest.mark.parametrize("keeps", [True, False], ids=["SHELVED", "SHELVED_OFFLOADED"])
async def test_on_the_shelf_it_takes_nothing_but_what_brings_it_back_or_away(cloud: Cloud, keeps: bool) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER if keeps else None)
    before = await cloud.world()
    ask = cloud.client.servers

    for refused in (
        ask.start(server.id),
        ask.stop(server.id),
        ask.reboot(server.id, hard=True),
        ask.resize(server.id, "huge"),
        ask.migrate(server.id),
        ask.rebuild(server.id),
        ask.snapshot(server.id, "web-1"),
        ask.shelve(server.id),
    ):
        with pytest.raises(InvalidState, match=shown.status):
            await refused

    await unchanged(cloud, shown, before)


async def test_what_is_not_shelved_is_neither_offloaded_nor_unshelved(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    for ask in (cloud.client.servers.shelve_offload, cloud.client.servers.unshelve):
        with pytest.raises(InvalidState, match="ACTIVE"):
            await ask(server.id)

    await running(cloud, server, before)


@pytest.mark.parametrize("keeps", [True, False], ids=["SHELVED", "SHELVED_OFFLOADED"])
async def test_its_image_cannot_be_deleted_but_goes_with_it(cloud: Cloud, keeps: bool) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER if keeps else None)

    with pytest.raises(Conflict, match="is the disk of server web"):
        await cloud.client.images.delete(str(shown.shelved_image_id))

    await cloud.deleted(server.id)
    assert await cloud.world() == before
    assert await images(cloud) == []


async def test_its_image_cannot_be_deleted_while_the_guest_is_being_removed_either(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("destroy_guest")
    shelve = await cloud.client.servers.shelve(server.id)
    await held.reached.wait()

    with pytest.raises(Conflict):
        await cloud.client.images.delete("web-shelved")

    held.go_on.set()
    await done(shelve)


# Onto the shelf: failures.


@pytest.mark.sampled
@pytest.mark.parametrize("step", BEFORE_THE_IMAGE)
@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_step_that_fails_brings_the_guest_back(cloud: Cloud, step: str, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=afterwards)

    failure = await cloud.failure(await cloud.client.servers.shelve(server.id))

    assert isinstance(failure, OperationFailed)
    await running(cloud, server, before)


@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_begin_that_fails_for_good_leaves_nothing(cloud: Cloud, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail("begin_snapshot", FOR_GOOD, afterwards=afterwards)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.shelve(server.id)

    await running(cloud, server, before)


async def test_a_stopped_server_that_cannot_be_shelved_stays_off(cloud: Cloud) -> None:
    server = await done(await cloud.client.servers.stop((await cloud.booted()).id))
    before = await cloud.world()
    cloud.stage.fail("import_snapshot", FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.shelve(server.id))

    await unchanged(cloud, server, before)
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN


@pytest.mark.parametrize("step", BEFORE_THE_IMAGE)
async def test_a_shelve_that_is_cancelled_brings_the_guest_back(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    shelve = await cancelled_at(cloud, step, cloud.client.servers.shelve(server.id))

    assert isinstance(await cloud.failure(shelve), Cancelled)
    await running(cloud, server, before)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["discard_snapshot", "publish_image", "destroy_guest", "drop_claim", "finish_shelve"])
async def test_once_its_image_is_in_the_store_it_is_shelved_whatever_comes(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()

    shelve = await cancelled_at(cloud, step, cloud.client.servers.shelve(server.id))

    assert (await done(shelve)).status == "SHELVED_OFFLOADED"
    assert await images(cloud) == ["web-shelved"]


async def cancelled_at(cloud: Cloud, step: str, asking: Awaitable[Operation]) -> Operation:
    """The operation that is asked for, cancelled while the step runs."""
    held = cloud.stage.hold(step)
    operation = await asking
    await held.reached.wait()
    await operation.cancel()
    held.go_on.set()
    return operation


@pytest.mark.sampled
@pytest.mark.parametrize("step", [*BEFORE_THE_IMAGE, "publish_image", "destroy_guest", "finish_shelve"])
async def test_a_delete_in_the_middle_of_a_shelve_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    await cloud.client.servers.shelve(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await done(delete)

    assert await cloud.world() == before
    assert await images(cloud) == []


async def test_steps_of_a_shelve_whose_answers_were_lost_are_done_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    lost = (*BEFORE_THE_IMAGE, "discard_snapshot", "publish_image", "destroy_guest", "drop_claim", "finish_shelve")
    for step in ("begin_snapshot", *lost):
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert (await shelved(cloud, server)).status == "SHELVED_OFFLOADED"
    assert await images(cloud) == ["web-shelved"]
    world = await cloud.world()
    assert not world.allocations | world.claims | world.guests | world.owed


async def test_a_silent_host_cannot_shelve_and_the_server_is_as_before(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(await cloud.client.servers.shelve(server.id))

    assert "host sim-1 does not answer" in str(failure)
    await cloud.start_host("sim-1")
    await running(cloud, server, before)


async def test_a_silent_host_is_left_and_owes_the_rest(cloud: Cloud) -> None:
    server = await cloud.booted()
    await shelved(cloud, server, offload_after=NEVER)
    await cloud.stop_host("sim-1")

    assert (await offloaded(cloud, server)).status == "SHELVED_OFFLOADED"

    world = await cloud.world()
    assert world.owed == LEAVING
    assert not world.allocations
    assert (await unshelved(cloud, server)).host == "sim-2"
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert world.owed == frozenset()
    assert world.claims == world.guests == world.bound_ports == world.allocations == {("sim-2", server.id)}


@pytest.mark.parametrize("step", ["destroy_guest", "drop_claim", "finish_offload"])
async def test_an_offload_only_goes_forward(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    await shelved(cloud, server, offload_after=NEVER)
    cloud.stage.fail(step, FOR_GOOD, afterwards=True)

    operation = await cancelled_at(cloud, "destroy_guest", cloud.client.servers.shelve_offload(server.id))

    assert (await done(operation)).status == "SHELVED_OFFLOADED"


async def test_an_offload_whose_begin_was_lost_for_good_leaves_it_shelved(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER)
    before = await cloud.world()
    cloud.stage.fail("begin", FOR_GOOD, afterwards=True)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.shelve_offload(server.id)

    await unchanged(cloud, shown, before)


# Back from its host.


async def test_a_server_that_kept_its_host_is_back_there_and_its_image_is_gone(cloud: Cloud) -> None:
    server = await cloud.booted()
    before, disk = await cloud.world(), content(cloud, "sim-1", server)
    await shelved(cloud, server, offload_after=NEVER)

    assert await unshelved(cloud, server) == server

    await running(cloud, server, before)
    assert content(cloud, "sim-1", server) == disk


async def test_one_that_kept_its_host_is_not_brought_back_elsewhere(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER)
    before = await cloud.world()

    for options in ({"host": "sim-2"}, {"availability_zone": "nova"}):
        with pytest.raises(InvalidRequest, match=r"still has its host|no availability zone"):
            await cloud.client.servers.unshelve(server.id, **options)  # type: ignore[arg-type]  # of the method

    await unchanged(cloud, shown, before)


@pytest.mark.parametrize("afterwards", [False, True])
async def test_one_that_kept_its_host_and_does_not_start_stays_shelved(cloud: Cloud, afterwards: bool) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER)
    before = await cloud.world()
    cloud.stage.fail("start_guest", FOR_GOOD, afterwards=afterwards)

    await cloud.failure(await cloud.client.servers.unshelve(server.id))

    await unchanged(cloud, shown, before)
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN


async def test_one_whose_host_is_silent_stays_shelved(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server, offload_after=NEVER)
    before = await cloud.world()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(await cloud.client.servers.unshelve(server.id))

    assert "host sim-1 does not answer" in str(failure)
    await cloud.start_host("sim-1")
    await unchanged(cloud, shown, before)


async def test_one_that_may_have_been_started_by_a_host_that_is_silent_since_is_brought_back_nowhere_else(
    cloud: Cloud,
) -> None:
    server = await cloud.booted()
    await shelved(cloud, server, offload_after=NEVER)
    held = cloud.stage.hold("start_guest", afterwards=True)
    unshelve = await cloud.client.servers.unshelve(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    await cloud.failure(unshelve)
    assert (await offloaded(cloud, server)).status == "SHELVED_OFFLOADED"

    with pytest.raises(InvalidState, match="may be running on host sim-1") as refusal:
        await cloud.client.servers.unshelve(server.id)

    assert "declare-down sim-1" in str(refusal.value.remedy)
    await cloud.start_host("sim-1")
    assert (await unshelved(cloud, server)).status == "ACTIVE"
    assert len((await cloud.world()).guests) == 1


# Back from the image.


async def test_an_offloaded_server_comes_back_with_its_disk_and_its_addresses(cloud: Cloud) -> None:
    server = await cloud.booted()
    before, disk = await cloud.world(), content(cloud, "sim-1", server)
    await shelved(cloud, server)

    assert await unshelved(cloud, server) == server

    await running(cloud, server, before)
    assert content(cloud, "sim-1", server) == disk


async def test_the_cached_copy_on_which_its_disk_stands_is_not_evicted(cloud: Cloud) -> None:
    server = await cloud.booted()
    image = (await shelved(cloud, server)).shelved_image_id
    await unshelved(cloud, server)

    assert (await audit(cloud)).findings == []

    assert image in await cached(cloud, "sim-1")


async def cached(cloud: Cloud, host: str) -> list[str]:
    """The images in a host's cache."""
    return [path.name for path in (cloud.settings.state_dir / "simulated" / "cache").iterdir()]


async def test_it_can_be_shelved_and_rebuilt_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk = content(cloud, "sim-1", server)
    for _ in range(2):
        await shelved(cloud, server)
        assert await unshelved(cloud, server) == server
    assert content(cloud, "sim-1", server) == disk

    assert await done(await cloud.client.servers.rebuild(server.id)) == server


async def test_it_comes_back_on_the_host_that_is_named(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk = content(cloud, "sim-1", server)
    await shelved(cloud, server)

    shown = await unshelved(cloud, server, host="sim-2")

    assert (shown.status, shown.host, shown.addresses) == ("ACTIVE", "sim-2", server.addresses)
    assert content(cloud, "sim-2", server) == disk


async def test_it_comes_back_in_the_zone_that_is_named_and_belongs_there(cloud: Cloud) -> None:
    with cloud.database.write() as session:
        session.get_one(Host, cloud.machine("sim-2").id).zone = "west"
    server = await cloud.booted()
    await shelved(cloud, server)

    shown = await unshelved(cloud, server, availability_zone="west")

    assert (shown.host, shown.availability_zone) == ("sim-2", "west")


@pytest.mark.parametrize(
    ("options", "error"),
    [({"host": "sim-9"}, NotFound), ({"availability_zone": "nowhere"}, InvalidRequest)],
    ids=["host", "zone"],
)
async def test_where_there_is_nothing_it_does_not_go(
    cloud: Cloud, options: dict[str, str], error: type[HostlerError]
) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    before = await cloud.world()

    with pytest.raises(error):
        await cloud.client.servers.unshelve(server.id, **options)  # type: ignore[arg-type]  # of the method

    await unchanged(cloud, shown, before)


async def test_without_a_host_that_has_room_it_stays_shelved_and_says_why(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    before = await cloud.world()
    for host in ("sim-1", "sim-2"):
        await cloud.client.hosts.disable(host)

    failure = await cloud.failure(await cloud.client.servers.unshelve(server.id))

    assert isinstance(failure, NoValidHost)
    assert failure.detail.filters
    await unchanged(cloud, shown, before)
    await cloud.client.hosts.enable("sim-1")
    assert await unshelved(cloud, server) == server


async def test_one_whose_image_is_lost_is_told_how_to_give_it_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    before = await cloud.world()
    with cloud.database.write() as session:
        session.delete(session.get_one(Image, shown.shelved_image_id))

    with pytest.raises(Conflict, match="is gone"):
        await cloud.client.servers.unshelve(server.id)

    await unchanged(cloud, shown, before)


@pytest.mark.parametrize("call", ["spawn", "resume", "bind"])
async def test_a_host_that_refuses_it_is_left_for_the_next(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(hosts=3, faults=[refuses("sim-2", call, times=-1)])
    server = await cloud.booted()
    await shelved(cloud, server)
    await cloud.client.hosts.disable("sim-1")

    assert (await unshelved(cloud, server)).host == "sim-3"

    world = await cloud.world()
    assert world.claims == world.guests == world.bound_ports == world.allocations == {("sim-3", server.id)}


@pytest.mark.parametrize("call", ["spawn", "resume", "bind"])
async def test_where_no_host_takes_it_it_stays_shelved(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", call)])
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    before = await cloud.world()

    failure = await cloud.failure(await cloud.client.servers.unshelve(server.id, host="sim-2"))

    assert isinstance(failure, NoValidHost)
    assert [attempt.host for attempt in failure.detail.attempts] == ["sim-2"]
    await unchanged(cloud, shown, before)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["schedule", "export_volume"])
@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_step_of_no_host_that_fails_leaves_it_shelved(
    start_cloud: StartCloud, step: str, afterwards: bool
) -> None:
    cloud = prefer_sim_1(await start_cloud(volumes=True))
    volume = await cloud.client.volumes.create(size_gib=1)
    server = await cloud.booted(**attach(volume.id))
    shown = await shelved(cloud, server)
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=afterwards)

    await cloud.failure(await cloud.client.servers.unshelve(server.id))

    await unchanged(cloud, shown, before)


async def test_steps_of_an_unshelve_whose_answers_were_lost_are_done_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await shelved(cloud, server)
    for step in ("begin_unshelve", *PLACED, "finish_unshelve"):
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert await unshelved(cloud, server) == server

    await running(cloud, server, before)


@pytest.mark.parametrize("afterwards", [False, True])
async def test_an_end_that_fails_is_tried_until_it_is_reached(cloud: Cloud, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await shelved(cloud, server)
    cloud.stage.fail("finish_unshelve", FOR_GOOD, afterwards=afterwards)

    assert await unshelved(cloud, server) == server

    await running(cloud, server, before)


@pytest.mark.sampled
@pytest.mark.parametrize("step", PLACED)
async def test_an_unshelve_that_is_cancelled_leaves_it_shelved(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    before = await cloud.world()

    operation = await cancelled_at(cloud, step, cloud.client.servers.unshelve(server.id))

    assert isinstance(await cloud.failure(operation), Cancelled)
    await unchanged(cloud, shown, before)
    assert await unshelved(cloud, server) == server


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["claim_resources", "spawn", "resume_guest", "finish_unshelve"])
async def test_a_delete_in_the_middle_of_an_unshelve_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    await shelved(cloud, server)
    held = cloud.stage.hold(step)
    await cloud.client.servers.unshelve(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await done(delete)

    assert await cloud.world() == before
    assert await images(cloud) == []


async def test_a_silent_host_is_left_for_the_next_and_owes(cloud: Cloud) -> None:
    server = await cloud.booted()
    await shelved(cloud, server)
    await cloud.stop_host("sim-1")

    assert (await unshelved(cloud, server)).host == "sim-2"

    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert world.claims == world.guests == world.bound_ports == world.allocations == {("sim-2", server.id)}
    assert not world.owed


async def perhaps_unshelved(cloud: Cloud, server: Server) -> HostlerError:
    """Of a server that is shelved: what its unshelve ends with when sim-1 falls silent as the guest is to run there."""
    await shelved(cloud, server)
    held = cloud.stage.hold("resume_guest")
    operation = await cloud.client.servers.unshelve(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    held.go_on.set()
    return await cloud.failure(operation)


async def test_what_may_be_running_on_a_silent_host_is_not_brought_back_a_second_time(cloud: Cloud) -> None:
    server = await cloud.booted()
    failure = await perhaps_unshelved(cloud, server)

    assert "may be running on host sim-1" in str(failure)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.shelved_image_id is not None) == ("ERROR", True)
    with pytest.raises(Conflict, match="is the disk of server"):
        await cloud.client.images.delete(str(shown.shelved_image_id))
    with pytest.raises(InvalidState, match="may be running on host sim-1"):
        await cloud.client.servers.unshelve(server.id)

    await cloud.start_host("sim-1")
    assert (await cloud.world()).guests == frozenset()
    assert (await unshelved(cloud, server)).status == "ACTIVE"


async def test_nor_before_that_host_was_declared_down(cloud: Cloud) -> None:
    server = await cloud.booted()
    await perhaps_unshelved(cloud, server)

    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "its power supply is on fire")
    back = await unshelved(cloud, server)

    assert (back.status, back.host) == ("ACTIVE", "sim-2")
    await cloud.start_host("sim-1")
    assert (await cloud.world()).guests == {("sim-2", server.id)}


async def test_one_in_error_that_fails_again_stays_so_and_says_why(cloud: Cloud) -> None:
    server = await cloud.booted()
    await perhaps_unshelved(cloud, server)
    await cloud.start_host("sim-1")
    cloud.stage.fail("spawn", OperationFailed("not an image"))

    await cloud.failure(await cloud.client.servers.unshelve(server.id))

    shown = await cloud.client.servers.show(server.id)
    assert shown.fault is not None
    assert (shown.status, shown.fault.error.message) == ("ERROR", "not an image")
    assert (await unshelved(cloud, server)).status == "ACTIVE"


async def test_one_in_error_that_is_not_on_the_shelf_is_refused(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", OperationFailed("no"), times=9)
    boot = await cloud.boot()
    await cloud.failure(boot)

    with pytest.raises(InvalidState, match="is ERROR; to unshelve it must be SHELVED_OFFLOADED or SHELVED"):
        await cloud.client.servers.unshelve(boot.server_id)


async def test_what_another_host_owes_does_not_make_it_uncertain_whether_it_runs(cloud: Cloud) -> None:
    server = await cloud.booted()
    shown = await shelved(cloud, server)
    held_claim = cloud.stage.hold("claim_resources")
    held = cloud.stage.hold("resume_guest")
    operation = await cloud.client.servers.unshelve(server.id)
    await held_claim.reached.wait()
    await cloud.stop_host("sim-1")
    held_claim.go_on.set()
    await held.reached.wait()
    await operation.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(operation), Cancelled)

    assert (await cloud.world()).owed == {("sim-1", "drop_claim")}
    assert await cloud.client.servers.show(server.id) == shown
    assert await power_on(cloud, "sim-2", server) is PowerState.NOSTATE
