"""Rebuild: another disk under the same server, or the disk that it had."""

import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import select

import workflows.rebuild
import workflows.source
from hostler.client import Operation
from hostler.contract.errors import (
    Cancelled,
    HostlerError,
    InvalidRequest,
    InvalidState,
    NotFound,
    OperationFailed,
    RescheduleError,
)
from hostler.contract.guests import GuestSpec
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, VmState
from hostler.settings import SimulatedFault
from models import Allocation, Flavor, Image, KeyPair
from models import Server as Row
from tests.cloud import DEMO, LIMIT, Cloud, World, breaks, refuses
from tests.leaks import Leaks, raw_records, readable_payloads, rows
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_audit import audit
from tests.workflows.test_move import FOR_GOOD, content, impatient, power_on
from tests.workflows.test_volume import attach, image_id, new_root

ALICE, BOB = "ssh-ed25519 AAAAalice", "ssh-ed25519 AAAAbob"
HOST_STEPS = ("fetch_image", "stop_guest", "set_aside_guest", "spawn", "resume_guest")


async def rebuilt(cloud: Cloud, server: Server, **options: object) -> Server:
    """The server, once it is rebuilt."""
    return await (await cloud.client.servers.rebuild(server.id, **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method


async def snapshot(cloud: Cloud, server: Server) -> str:
    """The UUID of an image of its own."""
    operation = await cloud.client.servers.snapshot(server.id, "golden")
    await operation.result(LIMIT)
    return str(operation.image_id)


async def stopped(cloud: Cloud, server: Server) -> Server:
    """The server, powered off."""
    return await (await cloud.client.servers.stop(server.id)).result(LIMIT)


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[GuestSpec]:
    """What reached the hypervisors of the guests that were spawned, in order."""
    from drivers.hypervisor.simulated import SimulatedHypervisor

    found: list[GuestSpec] = []
    spawn = SimulatedHypervisor.spawn

    async def remembering(self: SimulatedHypervisor, guest: GuestSpec, *rest: object) -> None:
        found.append(guest)
        await spawn(self, guest, *rest)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(SimulatedHypervisor, "spawn", remembering)
    return found


async def unchanged(cloud: Cloud, server: Server, before: World, disk: str) -> None:
    """The former guest is back and runs, with its disk, and nothing is left of the try."""
    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    assert content(cloud, "sim-1", server) == disk


async def test_a_rebuilt_server_has_the_images_disk_and_its_own_identity(cloud: Cloud) -> None:
    golden = await cloud.booted("golden")
    image = await snapshot(cloud, golden)
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()

    shown = await rebuilt(cloud, server, image=image)

    assert shown == server.model_copy(update={"image": "golden", "image_id": image})
    assert content(cloud, "sim-1", server) == content(cloud, "sim-1", golden)
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    assert await cloud.world() == before
    assert (await audit(cloud)).findings == []


async def test_without_an_image_it_is_rebuilt_from_the_one_that_it_has(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk = content(cloud, "sim-1", server)

    assert await rebuilt(cloud, server) == server

    assert content(cloud, "sim-1", server) == disk


async def test_a_stopped_server_is_rebuilt_and_stays_off(cloud: Cloud) -> None:
    server = await stopped(cloud, await cloud.booted())
    before = await cloud.world()

    assert await rebuilt(cloud, server) == server

    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN
    assert await cloud.world() == before
    assert (await (await cloud.client.servers.start(server.id)).result(LIMIT)).status == "ACTIVE"


@pytest.mark.parametrize("guest", ["runs", "is off", "is gone"])
async def test_a_server_in_error_is_active_afterwards_whatever_has_become_of_its_guest(
    cloud: Cloud, guest: str
) -> None:
    server = await in_error(cloud, guest)
    before = await cloud.world()

    shown = await rebuilt(cloud, server)

    assert (shown.status, shown.fault, shown.power_state) == ("ACTIVE", None, "running")
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    world = await cloud.world()
    assert world.guests == {("sim-1", server.id)}
    assert (world.formers, world.quota) == (frozenset(), before.quota)


@pytest.mark.parametrize("guest", ["runs", "is gone"])
async def test_a_server_in_error_that_cannot_be_rebuilt_stays_in_it_with_its_fault(cloud: Cloud, guest: str) -> None:
    server = await in_error(cloud, guest)
    before = await cloud.world()
    cloud.stage.fail("spawn", FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["stop_guest", "set_aside_guest", "spawn", "resume_guest"])
@pytest.mark.parametrize("interruption", ["failure", "cancellation"])
async def test_a_server_in_error_whose_rebuild_is_undone_runs_as_before(
    cloud: Cloud, step: str, interruption: str
) -> None:
    server = await in_error(cloud, "runs")
    disk, before = content(cloud, "sim-1", server), await cloud.world()

    if interruption == "failure":
        cloud.stage.fail(step, FOR_GOOD, afterwards=True)
        rebuild = await cloud.client.servers.rebuild(server.id)
    else:
        rebuild = await cancelled_at(cloud, server, step)

    await cloud.failure(rebuild)
    await unchanged(cloud, server, before, disk)


async def test_a_server_in_error_whose_guest_is_off_is_not_started_by_the_undo(cloud: Cloud) -> None:
    server = await in_error(cloud, "is off")
    before = await cloud.world()
    cloud.stage.fail("spawn", FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN


async def in_error(cloud: Cloud, guest: str) -> Server:
    """A server in ERROR, on its host."""
    server = await cloud.booted()
    if guest == "is off":
        await stopped(cloud, server)
    if guest == "is gone":
        await cloud.machine("sim-1").hypervisor.destroy(server.id)
    with cloud.database.write() as session:
        row = session.get_one(Row, server.id)
        row.vm_state = VmState.ERROR
        row.fault = {"created_at": "2026-01-01T00:00:00Z", "error": {"code": "OperationFailed", "message": "it broke"}}
    return await cloud.client.servers.show(server.id)


async def test_meanwhile_its_status_says_so(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("spawn")
    rebuild = await cloud.client.servers.rebuild(server.id)
    await held.reached.wait()

    assert (await cloud.client.servers.show(server.id)).status == "REBUILD"
    held.go_on.set()
    assert (await rebuild.result(LIMIT)).status == "ACTIVE"


async def test_its_volumes_stay_attached(start_cloud: StartCloud, spawned: list[GuestSpec]) -> None:
    cloud = await start_cloud(volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1)
    server = await cloud.booted(**attach(volume.id))
    before = await cloud.world()

    assert await rebuilt(cloud, server) == server

    assert await cloud.world() == before
    assert spawned[-1].disks == spawned[0].disks


async def test_a_disk_that_is_as_large_as_its_image_is_as_large_as_the_next_one(cloud: Cloud) -> None:
    cloud.add(Flavor(id=str(uuid4()), name="any", vcpus=1, ram_mib=128, disk_gib=0))
    golden = await cloud.booted("golden")
    image = await cloud.client.images.show(await snapshot(cloud, golden))
    server = await cloud.booted(flavor="any")

    shown = await rebuilt(cloud, server, image=image.id)

    assert server.devices[0].size_bytes != image.virtual_size_bytes
    assert shown.devices[0].size_bytes == image.virtual_size_bytes


async def test_a_disk_that_would_grow_takes_its_room_while_it_is_made_and_gives_it_back_when_that_is_undone(
    cloud: Cloud,
) -> None:
    cloud.add(Flavor(id=str(uuid4()), name="any", vcpus=1, ram_mib=128, disk_gib=0))
    image = await cloud.client.images.show(await snapshot(cloud, await cloud.booted("golden")))
    server = await cloud.booted(flavor="any")
    assert disk_taken(cloud, server) == 1
    with cloud.database.write() as session:
        session.get_one(Image, image.id).virtual_size_bytes = 200 * 2**30
    held = cloud.stage.hold("spawn")
    cloud.stage.fail("resume_guest", FOR_GOOD)

    rebuild = await cloud.client.servers.rebuild(server.id, image=image.id)
    await held.reached.wait()
    assert disk_taken(cloud, server) == 200
    held.go_on.set()
    await cloud.failure(rebuild)

    assert disk_taken(cloud, server) == 1
    assert await cloud.client.servers.show(server.id) == server


def disk_taken(cloud: Cloud, server: Server) -> int:
    """GiB that the scheduler counts."""
    with cloud.database.read() as session:
        return session.exec(select(Allocation.disk_gib).where(Allocation.server_id == server.id)).one()


# What reaches the guest.


@pytest.mark.parametrize(
    ("asked", "key_name", "keys"),
    [(None, "alice", {"alice": ALICE}), ("bob", "bob", {"bob": BOB}), ("", None, {})],
    ids=["kept", "replaced", "emptied"],
)
async def test_its_key_is_kept_replaced_or_taken_away(
    cloud: Cloud, spawned: list[GuestSpec], asked: str | None, key_name: str | None, keys: dict[str, str]
) -> None:
    cloud.add(
        KeyPair(name="alice", public_key=ALICE, fingerprint="a"), KeyPair(name="bob", public_key=BOB, fingerprint="b")
    )
    server = await cloud.booted(key_name="alice")

    shown = await rebuilt(cloud, server, key_name=asked)

    assert shown.key_name == key_name
    assert spawned[-1].public_keys == keys
    for name in ("alice", "bob"):
        await cloud.client.keypairs.delete(name)
    await rebuilt(cloud, server)
    assert spawned[-1].public_keys == keys


@pytest.mark.parametrize(
    ("asked", "given"), [(None, b"first"), (b"second", b"second"), (b"", None)], ids=["kept", "replaced", "emptied"]
)
async def test_its_user_data_is_kept_replaced_or_taken_away(
    cloud: Cloud, spawned: list[GuestSpec], asked: bytes | None, given: bytes | None
) -> None:
    server = await cloud.booted(user_data=b"first")

    await rebuilt(cloud, server, user_data=asked)

    wanted = base64.b64encode(given).decode() if given is not None else None
    assert spawned[-1].user_data == wanted
    await rebuilt(cloud, server)
    assert spawned[-1].user_data == wanted


async def test_ephemeral_disks_are_made_anew_unless_they_shall_be_kept(cloud: Cloud, spawned: list[GuestSpec]) -> None:
    cloud.add(Flavor(id=str(uuid4()), name="roomy", vcpus=1, ram_mib=128, disk_gib=1, ephemeral_gib=1))
    server = await cloud.booted(flavor="roomy")

    await rebuilt(cloud, server)
    await rebuilt(cloud, server, preserve_ephemeral=True)

    assert [guest.preserve_ephemeral for guest in spawned] == [False, False, True]
    assert spawned[2].disks == spawned[0].disks


async def test_a_password_reaches_the_guest_and_stays_nowhere(cloud: Cloud, spawned: list[GuestSpec]) -> None:
    server = await cloud.booted()
    password = "c0rrect-h0rse-battery"

    await rebuilt(cloud, server, admin_password=password, user_data=b"#!/bin/hush-hush")

    assert spawned[-1].admin_password == password
    leaks = Leaks({"password": password.encode(), "user data": b"#!/bin/hush-hush"})
    for table, row in rows(cloud.database):
        leaks.look(table, row)
    async for place, record in raw_records(cloud.temporal):
        leaks.look(place, record.SerializeToString())
        assert list(readable_payloads(record)) == []
    assert leaks.looked_at > 0
    assert leaks.found == []
    await rebuilt(cloud, server)
    assert spawned[-1].admin_password is None


# Refusals.


async def test_what_does_not_suit_the_server_is_refused_and_it_runs_on(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    ready: dict[str, Any] = {"disk_format": DiskFormat.RAW, "status": ImageStatus.ACTIVE}
    cloud.add(
        Image(id=str(uuid4()), name="wide", virtual_size_bytes=2**31, **ready),
        Image(id=str(uuid4()), name="hungry", min_ram_mib=1024, **ready),
        Image(id=str(uuid4()), name="foreign", properties={"architecture": "sparc64"}, **ready),
        Image(id=str(uuid4()), name="contained", properties={"hypervisor_type": "lxc"}, **ready),
    )
    refusals: list[tuple[dict[str, str], type[HostlerError], str]] = [
        ({"image": "wide"}, InvalidRequest, "too small for image wide"),
        ({"image": "hungry"}, InvalidRequest, "needs 1024 MiB"),
        ({"image": "foreign"}, InvalidRequest, "cannot run image foreign: it is not of architecture sparc64"),
        ({"image": "contained"}, InvalidRequest, "cannot run image contained: it is without hypervisor lxc"),
        ({"image": "nothing"}, NotFound, "no image"),
        ({"key_name": "nobody"}, NotFound, "no key pair"),
    ]

    for options, error, words in refusals:
        with pytest.raises(error, match=words):
            await cloud.client.servers.rebuild(server.id, **options)  # type: ignore[arg-type]  # of the method

    await unchanged(cloud, server, before, disk)


async def test_a_root_disk_that_is_a_volume_is_not_written_over(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    server = await cloud.booted(**new_root(uuid=await image_id(cloud)) | {"image": None})
    disk, before = content(cloud, "sim-1", server), await cloud.world()

    with pytest.raises(InvalidState, match="is a volume"):
        await cloud.client.servers.rebuild(server.id, image=DEMO)

    await unchanged(cloud, server, before, disk)


async def test_an_image_that_is_no_longer_there_is_asked_for_by_name(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    with cloud.database.write() as session:
        session.delete(session.get_one(Image, server.image_id))

    with pytest.raises(NotFound, match="no longer there"):
        await cloud.client.servers.rebuild(server.id)

    await unchanged(cloud, server, before, disk)


async def test_a_server_on_no_host_is_told_so(cloud: Cloud) -> None:
    boot = await cloud.boot(flavor="huge")
    await cloud.failure(boot)

    with pytest.raises(InvalidState, match="on no host"):
        await cloud.client.servers.rebuild(boot.server_id)


# Failures.


@pytest.mark.sampled
@pytest.mark.parametrize("step", HOST_STEPS)
@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_step_that_fails_brings_the_former_guest_back(cloud: Cloud, step: str, afterwards: bool) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=afterwards)

    failure = await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert isinstance(failure, OperationFailed)
    await unchanged(cloud, server, before, disk)


@pytest.mark.parametrize("fault", [breaks("sim-1", "stop"), refuses("sim-1", "set_aside", times=-1)])
async def test_a_host_that_cannot_brings_the_former_guest_back(start_cloud: StartCloud, fault: SimulatedFault) -> None:
    cloud = await start_cloud(faults=[fault])
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()

    failure = await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert isinstance(failure, RescheduleError | OperationFailed)
    await unchanged(cloud, server, before, disk)


@pytest.mark.parametrize("step", ["set_aside_guest", "spawn", "stop_guest"])
async def test_a_stopped_server_that_cannot_be_rebuilt_stays_off(cloud: Cloud, step: str) -> None:
    server = await stopped(cloud, await cloud.booted())
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN


async def test_a_network_that_does_not_come_up_brings_the_former_guest_back(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    unplugged(cloud, monkeypatch)

    failure = await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert "no vif-plugged event" in str(failure)
    await unchanged(cloud, server, before, disk)


def unplugged(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no tap comes up."""
    hypervisor = cloud.machine("sim-1").hypervisor
    network: Callable[[str], None] = lambda port_id: None  # noqa: E731 - it stands for a method
    monkeypatch.setattr(hypervisor._network, "plug", network)  # type: ignore[attr-defined]  # it is a simulated one


@pytest.mark.sampled
@pytest.mark.parametrize("step", [*HOST_STEPS, "wait_vif_plugged"])
async def test_a_rebuild_that_is_cancelled_brings_the_former_guest_back(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    if step == "wait_vif_plugged":
        unplugged(cloud, monkeypatch)
        rebuild = await cloud.client.servers.rebuild(server.id)
        await cloud.reached(rebuild, step)
        await rebuild.cancel()
    else:
        rebuild = await cancelled_at(cloud, server, step)

    assert isinstance(await cloud.failure(rebuild), Cancelled)

    await unchanged(cloud, server, before, disk)


@pytest.mark.parametrize("step", ["drop_former_guest", "finish_rebuild"])
async def test_once_the_new_guest_runs_it_ends_as_asked(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    rebuild = await cancelled_at(cloud, server, step)

    assert await rebuild.result(LIMIT) == server
    assert await cloud.world() == before


async def cancelled_at(cloud: Cloud, server: Server, step: str) -> Operation:
    """A rebuild that is cancelled while the step runs."""
    held = cloud.stage.hold(step)
    rebuild = await cloud.client.servers.rebuild(server.id)
    await held.reached.wait()
    await rebuild.cancel()
    held.go_on.set()
    return rebuild


@pytest.mark.parametrize("step", ["stop_guest", "spawn", "drop_former_guest"])
async def test_a_delete_in_the_middle_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    await cloud.client.servers.rebuild(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await delete.result(LIMIT)

    assert await cloud.world() == before


async def test_a_begin_whose_answer_was_lost_for_good_is_taken_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    cloud.stage.fail("begin_rebuild", FOR_GOOD, afterwards=True)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.rebuild(server.id)

    await unchanged(cloud, server, before, disk)


async def test_steps_whose_answers_were_lost_are_done_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    for step in ("begin_rebuild", *HOST_STEPS, "drop_former_guest", "finish_rebuild"):
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert await rebuilt(cloud, server) == server

    assert await cloud.world() == before


async def test_a_silent_host_is_named_and_the_server_is_as_before(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(await cloud.client.servers.rebuild(server.id))

    assert "host sim-1 does not answer" in str(failure)
    await cloud.start_host("sim-1")
    await unchanged(cloud, server, before, disk)


async def test_a_host_that_goes_in_the_middle_brings_the_former_guest_back_when_it_returns(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk, before = content(cloud, "sim-1", server), await cloud.world()
    held = cloud.stage.hold("set_aside_guest")
    rebuild = await cloud.client.servers.rebuild(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    held.go_on.set()

    await cloud.failure(rebuild)

    assert ("sim-1", "bring_back_guest") in (await cloud.world()).owed
    await cloud.start_host("sim-1")
    await unchanged(cloud, server, before, disk)


async def test_a_host_that_goes_once_the_new_guest_runs_owes_the_former_ones_removal(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail("drop_former_guest", FOR_GOOD)

    assert await rebuilt(cloud, server) == server

    assert (await cloud.world()).owed == {("sim-1", "drop_former_guest")}
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    assert await cloud.world() == before


async def test_a_try_to_stop_the_former_guest_that_comes_too_late_does_not_stop_the_new_one(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows.rebuild, "STOP", impatient(workflows.source.STOP))
    server = await cloud.booted()
    held = cloud.stage.hold("stop_guest")

    assert await rebuilt(cloud, server) == server
    held.go_on.set()
    await eventually(lambda: not cloud.stage.under_way)

    assert cloud.stage.names().count("stop_guest") == 2
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
