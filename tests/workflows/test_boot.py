"""Boot: what a server is when it is up, who may join it, and what is refused before anything is done."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from hostler.contract.errors import Conflict, HostlerError, InvalidRequest, NotFound, QuotaExceeded, ServerBusy
from hostler.contract.resources import DiskFormat, ImageStatus, VolumeStatus
from hostler.contract.servers import BlockDeviceMapping, NetworkRequest, OperationName, StepStatus
from models import Flavor, Image, KeyPair, Network, Volume
from tests.cloud import NET, Cloud
from workflows.boot import PLANNED


async def test_a_server_that_is_up_says_where_and_since_when(cloud: Cloud) -> None:
    server = await cloud.booted(metadata={"role": "web"}, availability_zone="nova")

    assert (server.status, server.vm_state, server.power_state) == ("ACTIVE", "active", "running")
    assert server.task_state is None
    assert (server.host, server.host_id) == ("sim-1", cloud.machine("sim-1").id)
    assert server.launched_at is not None
    assert server.launched_at >= (server.created_at or server.launched_at)
    assert [(a.network, a.ip, a.mac[:9]) for a in server.addresses] == [(NET, "10.0.0.2", "fa:16:3e:")]
    assert [(d.device, d.kind, d.size_bytes) for d in server.devices] == [("vda", "root", 2**30)]
    assert (server.metadata, server.fault) == ({"role": "web"}, None)
    assert await cloud.client.servers.show(server.id) == server


async def test_its_world_is_one_of_everything_and_nothing_after_its_delete(cloud: Cloud) -> None:
    before = await cloud.world()

    server = await cloud.booted()

    world = await cloud.world()
    assert world.servers == {(server.id, "active")}
    assert world.quota == (1, 1, 128, 0, 0)
    assert world.allocations == world.claims == world.guests == {("sim-1", server.id)}
    assert world.bound_ports == {("sim-1", server.id)}
    assert world.ports == {(server.id, "10.0.0.2")}
    assert world.block_devices == {(server.id, "vda")}
    assert not world.held_servers | world.owed | world.partial_images | world.workflows
    assert (await cloud.deleted(server.id)).status == "DELETED"
    assert await cloud.world() == before


async def test_its_progress_has_every_planned_step(cloud: Cloud) -> None:
    operation = await cloud.boot()
    await operation.result()

    progress = await cloud.progress(operation)
    assert progress.done
    assert (progress.operation, progress.host, progress.attempt) == ("boot", "sim-1", 1)
    assert {step.name for step in progress.steps} == {*PLANNED, "set_task_state"}
    assert {step.status for step in progress.steps} == {StepStatus.DONE}
    assert all(step.started_at and step.finished_at for step in progress.steps)


async def test_while_it_runs_the_progress_tells_what_is_done_and_what_is_to_come(cloud: Cloud) -> None:
    held = cloud.stage.hold("spawn")
    operation = await cloud.boot()
    await held.reached.wait()

    statuses = {step.name: step.status for step in (await cloud.progress(operation)).steps}
    shown = await cloud.client.servers.show(operation.server_id)
    held.go_on.set()

    assert statuses["bind_ports"] is StepStatus.DONE
    assert statuses["spawn"] is StepStatus.RUNNING
    assert statuses["resume_guest"] is statuses["activate"] is StepStatus.PENDING
    assert shown.status == "BUILD"
    assert (await operation.result()).status == "ACTIVE"


async def test_its_events_are_the_steps_of_its_progress(cloud: Cloud) -> None:
    operation = await cloud.boot()
    await operation.result()

    events = await cloud.client.servers.events(operation.server_id)
    steps = (await cloud.progress(operation)).steps
    assert [(e.operation, e.run_id) for e in events] == [(OperationName.BOOT, operation.run_id)] * len(steps)
    assert [(e.step.name, e.step.status, e.step.host) for e in events] == [(s.name, s.status, s.host) for s in steps]
    assert all(event.step.finished_at for event in events)


async def test_a_server_without_networks_waits_for_none(cloud: Cloud) -> None:
    server = await cloud.booted(networks=())

    assert (server.status, server.addresses) == ("ACTIVE", [])
    assert not {"bind_ports", "wait_vif_plugged"} & {e.step.name for e in await cloud.client.servers.events(server.id)}


async def test_many_at_once_get_an_address_each(cloud: Cloud) -> None:
    before = await cloud.world()
    servers = await asyncio.gather(*(cloud.booted(f"web-{number}") for number in range(8)))

    assert {server.addresses[0].ip for server in servers} == {f"10.0.0.{last}" for last in range(2, 10)}
    assert len((await cloud.world()).guests) == 8
    await asyncio.gather(*(cloud.deleted(server.id) for server in servers))
    assert await cloud.world() == before


# The UUID is the idempotency key.


async def test_the_same_request_joins_the_boot_that_runs(cloud: Cloud) -> None:
    held = cloud.stage.hold("spawn")
    server_id = str(uuid4())
    first = await cloud.boot(server_id=server_id)
    await held.reached.wait()
    second = await cloud.boot(server_id=server_id)
    held.go_on.set()

    assert first.run_id == second.run_id
    assert await first.result() == await second.result()
    assert cloud.stage.names().count("spawn") == 1


async def test_the_same_request_finds_the_server_that_was_built(cloud: Cloud) -> None:
    first = await cloud.boot(server_id=str(uuid4()))
    server = await first.result()

    again = await cloud.boot(server_id=server.id)

    assert again.run_id == first.run_id
    assert await again.result() == server
    assert cloud.stage.names().count("spawn") == 1


async def test_the_same_request_hears_again_why_a_boot_failed(cloud: Cloud) -> None:
    first = await cloud.boot(server_id=str(uuid4()), flavor="huge")
    story = await cloud.failure(first)

    again = await cloud.boot(server_id=first.server_id, flavor="huge")

    assert again.run_id == first.run_id
    assert (await cloud.failure(again)).detail == story.detail


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "when it is up"])
async def test_another_request_with_the_same_uuid_is_a_conflict(cloud: Cloud, running: bool) -> None:
    held = cloud.stage.hold("spawn")
    first = await cloud.boot(server_id=str(uuid4()))
    await held.reached.wait()
    if not running:
        held.go_on.set()
        await first.result()

    with pytest.raises(Conflict):
        await cloud.boot("another", server_id=first.server_id)

    held.go_on.set()
    assert (await first.result()).name == "web"


async def test_the_uuid_of_a_deleted_server_is_not_used_again(cloud: Cloud) -> None:
    server = await cloud.booted(server_id=str(uuid4()))
    await cloud.deleted(server.id)

    with pytest.raises(Conflict):
        await cloud.boot(server_id=server.id)


@pytest.mark.parametrize("operation", ["start", "stop", "reboot"])
async def test_a_second_operation_is_told_that_the_server_is_busy(cloud: Cloud, operation: str) -> None:
    held = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await held.reached.wait()

    with pytest.raises(ServerBusy, match=r"boot.*spawn"):
        await getattr(cloud.client.servers, operation)(boot.server_id)

    held.go_on.set()
    assert (await boot.result()).status == "ACTIVE"


# What is refused leaves nothing behind.

VOLUME, TAKEN, SAVING, ELSEWHERE = (str(uuid4()) for _ in range(4))


def existing_volume(uuid: str) -> dict[str, Any]:
    """A boot from a volume that is said to exist."""
    mapping = BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=uuid, boot_index=0)
    return {"image": None, "block_devices": [mapping]}


NEW_VOLUME = BlockDeviceMapping(source_type="blank", destination_type="volume", volume_size=1)
REFUSED: dict[str, tuple[dict[str, Any], type[HostlerError], str]] = {
    "an unknown flavor": ({"flavor": "none"}, NotFound, "flavor"),
    "an unknown image": ({"image": "none"}, NotFound, "image"),
    "an unknown network": ({"networks": ["none"]}, NotFound, "network"),
    "an unknown zone": ({"availability_zone": "none"}, InvalidRequest, "availability_zone"),
    "an unknown host": ({"host": "none"}, NotFound, "host"),
    "an unknown key pair": ({"key_name": "none"}, NotFound, "key_name"),
    "an unknown volume": (existing_volume(str(uuid4())), NotFound, "volume"),
    "somebody else's network": ({"networks": ["theirs"]}, NotFound, "network"),
    "an image that is not ready": ({"image": "saving"}, Conflict, "image"),
    "a flavor with too little memory": ({"image": "greedy"}, InvalidRequest, "flavor"),
    "a flavor with too little disk": ({"image": "large"}, InvalidRequest, "flavor"),
    "a volume that is in use": (existing_volume(TAKEN), Conflict, "block_device_mapping"),
    "too many servers": ({"flavor": "wide"}, QuotaExceeded, "vcpus"),
    "an ambiguous image": ({"image": "twice"}, Conflict, "image"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused_leaves_nothing_behind(cloud: Cloud, case: str) -> None:
    ready: dict[str, Any] = {"disk_format": DiskFormat.QCOW2, "status": ImageStatus.ACTIVE, "virtual_size_bytes": 2**20}
    cloud.add(
        Flavor(id=str(uuid4()), name="wide", vcpus=10_000, ram_mib=128, disk_gib=1),
        Network(id=str(uuid4()), name="theirs", project="theirs", cidr="10.1.0.0/24", gateway="10.1.0.1"),
        Image(id=str(uuid4()), name="saving", disk_format=DiskFormat.QCOW2),
        Image(id=str(uuid4()), name="greedy", min_ram_mib=4096, **ready),
        Image(id=str(uuid4()), name="large", min_disk_gib=20, **ready),
        Image(id=str(uuid4()), name="twice", **ready),
        Image(id=str(uuid4()), name="twice", **ready),
        Volume(id=TAKEN, size_gib=1, status=VolumeStatus.IN_USE),
    )
    before = await cloud.world()
    options, error, field = REFUSED[case]

    with pytest.raises(error) as caught:
        await cloud.boot(server_id=VOLUME, **options)

    assert caught.value.detail.field == field
    assert caught.value.remedy or error is Conflict
    assert cloud.row(VOLUME) is None
    assert await cloud.world() == before


async def test_a_refused_uuid_may_be_used_for_a_better_request(cloud: Cloud) -> None:
    server_id = str(uuid4())
    with pytest.raises(NotFound):
        await cloud.boot(server_id=server_id, flavor="none")

    assert (await cloud.booted(server_id=server_id)).status == "ACTIVE"


async def test_a_boot_is_refused_once_the_quota_is_used_up(cloud: Cloud) -> None:
    await cloud.client.quotas.set(servers=1)
    server = await cloud.booted()
    before = await cloud.world()

    with pytest.raises(QuotaExceeded) as caught:
        await cloud.boot()

    assert (caught.value.detail.field, await cloud.world()) == ("servers", before)
    await cloud.deleted(server.id)
    assert (await cloud.booted()).status == "ACTIVE"


ADDRESSES = {
    "taken": ("10.0.0.2", Conflict),
    "the gateway's": ("10.0.0.1", Conflict),
    "outside the subnet": ("10.9.9.9", InvalidRequest),
    "the broadcast address": ("10.0.0.255", InvalidRequest),
}


@pytest.mark.parametrize("case", ADDRESSES)
async def test_an_address_that_cannot_be_had_ends_the_boot_with_nothing_held(cloud: Cloud, case: str) -> None:
    await cloud.booted()
    before = await cloud.world()
    address, error = ADDRESSES[case]

    operation = await cloud.boot(networks=[NetworkRequest(network=NET, fixed_ip=address)])

    failure = await cloud.failure(operation)
    assert (type(failure), failure.detail.field) == (error, "fixed_ip")
    assert (await cloud.client.servers.show(operation.server_id)).status == "ERROR"
    assert (await cloud.world()).besides(operation.server_id) == before.besides(operation.server_id)


async def test_a_fixed_address_is_the_one_that_the_server_gets(cloud: Cloud) -> None:
    server = await cloud.booted(networks=[NetworkRequest(network=NET, fixed_ip="10.0.0.77")])
    assert [address.ip for address in server.addresses] == ["10.0.0.77"]


async def test_a_full_network_says_so(cloud: Cloud) -> None:
    cloud.add(Network(id=str(uuid4()), name="small", cidr="10.2.0.0/30", gateway="10.2.0.1"))
    await cloud.booted(networks=["small"])

    operation = await cloud.boot(networks=["small"])

    assert "no free address" in str(await cloud.failure(operation))


async def test_the_key_and_the_image_of_a_server_may_be_deleted_afterwards(cloud: Cloud) -> None:
    cloud.add(KeyPair(name="mine", public_key="ssh-ed25519 AAAA", fingerprint="x"))
    server = await cloud.booted(key_name="mine")
    await cloud.client.keypairs.delete("mine")
    await cloud.client.images.delete("demo")

    shown = await cloud.client.servers.show(server.id)
    assert (shown.key_name, shown.image) == ("mine", "demo")
