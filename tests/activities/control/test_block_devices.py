"""Volumes: each belongs to one server at a time, and is forgotten or freed as it came."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import col, select

from activities.control.block_devices import BlockDevices
from activities.interfaces.block_devices import AcceptVolume, PrepareDevices, ReleaseDevices, VolumeRef
from hostler.contract.errors import Conflict, HostlerError, NotFound, NoValidHost
from hostler.contract.guests import DiskKind, GuestDisk
from hostler.contract.resources import VolumeCreate, VolumeStatus
from hostler.settings import TimeoutSettings
from models import BlockDevice, Database, Host, OwedWork, Quota, Volume
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add

GIB = 2**30


@pytest.fixture
def host(database: Database) -> Host:
    """A host that keeps volumes."""
    host = a_host(volumes=True)
    add(database, host)
    return host


@pytest.fixture
def devices(database: Database, host: Host) -> BlockDevices:
    """The activities on block devices, in a cloud whose host is up."""
    return BlockDevices(database, lambda: frozenset([host.id]), TimeoutSettings())


@pytest.fixture
def volume(database: Database, host: Host) -> str:
    """The UUID of a volume that is available."""
    volume = Volume(id=uuid(), size_gib=1, status=VolumeStatus.AVAILABLE, host_id=host.id)
    add(database, volume)
    return volume.id


def wants(database: Database, volume_id: str, *, create: bool = False, discard: bool = False) -> PrepareDevices:
    """What a new server asks for: a disk of its own, and the volume."""
    server = a_server()
    add(database, server)
    root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=GIB)
    data = GuestDisk(
        kind=DiskKind.DATA,
        device="vdb",
        size_bytes=GIB,
        volume_id=volume_id,
        create=create,
        delete_on_termination=discard,
    )
    return PrepareDevices(server_id=server.id, run_id=uuid(), disks=[root, data])


def release(call: PrepareDevices, *, undo_boot: bool) -> ReleaseDevices:
    """Give them back."""
    return ReleaseDevices(server_id=call.server_id, run_id=call.run_id, undo_boot=undo_boot)


def found(database: Database, volume_id: str) -> Volume | None:
    """The volume's row."""
    with database.read() as session:
        return session.get(Volume, volume_id)


def mappings(database: Database) -> int:
    """How many block devices are written."""
    with database.read() as session:
        return len(session.exec(select(BlockDevice)).all())


def test_prepared_twice_they_are_prepared_once(devices: BlockDevices, database: Database, volume: str) -> None:
    call = wants(database, volume)
    first = devices.prep_block_devices(call)
    assert devices.prep_block_devices(call) == first
    assert [(work.volume_id, work.create) for work in first] == [(volume, None)]
    assert mappings(database) == 2
    reserved = found(database, volume)
    assert reserved is not None
    assert (reserved.status, reserved.server_id) == ("reserved", call.server_id)


@pytest.mark.parametrize("first", [0, 1], ids=["the lower first", "the higher first"])
def test_servers_whose_uuids_begin_alike_have_block_devices_of_their_own(
    devices: BlockDevices, database: Database, first: int
) -> None:
    prefix = uuid()[:-3]
    root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=GIB)
    swap = GuestDisk(kind=DiskKind.SWAP, device="vdb", size_bytes=GIB)
    for number in (first, 1 - first):
        server = a_server(id=f"{prefix}00{number}")
        add(database, server)
        devices.prep_block_devices(PrepareDevices(server_id=server.id, run_id=uuid(), disks=[root, swap]))
    assert mappings(database) == 4


def test_block_devices_that_the_release_before_wrote_are_not_written_beside(
    devices: BlockDevices, database: Database, volume: str
) -> None:
    call = wants(database, volume)
    devices.prep_block_devices(call)
    with database.write() as session:
        for row in session.exec(select(BlockDevice)):
            row.id = f"{call.server_id[:-3]}{row.position:03d}"
    with database.read() as session:
        before = session.exec(select(BlockDevice).order_by(col(BlockDevice.position))).all()

    devices.prep_block_devices(call)

    with database.read() as session:
        assert session.exec(select(BlockDevice).order_by(col(BlockDevice.position))).all() == before


def test_of_many_that_want_a_volume_one_gets_it(devices: BlockDevices, database: Database, volume: str) -> None:
    calls = [wants(database, volume) for _ in range(6)]

    def prepare(call: PrepareDevices) -> bool:
        try:
            return bool(devices.prep_block_devices(call))
        except Conflict:
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(prepare, calls)) == [False] * 5 + [True]
    assert mappings(database) == 2


def owe_withdrawal(database: Database, host: Host, volume_id: str) -> OwedWork:
    """What the host has left of a server that was deleted while it was away."""
    work = OwedWork(
        id=uuid(),
        host_id=host.id,
        server_id=uuid(),
        activity="withdraw_volume",
        argument={"volume_id": volume_id},
        reason="away",
    )
    add(database, work)
    return work


def test_a_volume_that_its_host_has_yet_to_withdraw_is_not_given_to_the_next_server(
    devices: BlockDevices, database: Database, host: Host, volume: str
) -> None:
    work = owe_withdrawal(database, host, volume)
    call = wants(database, volume)
    with pytest.raises(Conflict, match="host has yet to withdraw") as caught:
        devices.prep_block_devices(call)
    assert caught.value.remedy == "it does so within seconds of being up: hostler host show host"
    free = found(database, volume)
    assert free is not None
    assert (free.status, free.server_id) == ("available", None)

    with database.write() as session:
        session.delete(session.get_one(OwedWork, work.id))
    assert [one.volume_id for one in devices.prep_block_devices(call)] == [volume]


def test_what_a_host_owes_of_another_volume_keeps_none_from_this_one(
    devices: BlockDevices, database: Database, host: Host, volume: str
) -> None:
    owe_withdrawal(database, host, uuid())
    assert [one.volume_id for one in devices.prep_block_devices(wants(database, volume))] == [volume]


def test_what_was_reserved_before_stays_reserved_whatever_its_host_owes_since(
    devices: BlockDevices, database: Database, host: Host, volume: str
) -> None:
    call = wants(database, volume)
    first = devices.prep_block_devices(call)
    owe_withdrawal(database, host, volume)
    assert devices.prep_block_devices(call) == first


def test_a_volume_of_another_project_is_not_found(devices: BlockDevices, database: Database, host: Host) -> None:
    theirs = Volume(id=uuid(), project="theirs", size_gib=1, status=VolumeStatus.AVAILABLE, host_id=host.id)
    add(database, theirs)
    with pytest.raises(NotFound):
        devices.prep_block_devices(wants(database, theirs.id))


def test_a_new_volume_is_placed_once(devices: BlockDevices, database: Database, host: Host) -> None:
    volume_id = uuid()
    call = wants(database, volume_id, create=True)
    first = devices.prep_block_devices(call)
    assert devices.prep_block_devices(call) == first
    [work] = first
    assert work.create is not None
    assert (work.host.id, work.create.size_gib) == (host.id, 1)


@pytest.mark.parametrize(
    ("create", "discard", "undo_boot", "stays"),
    [
        pytest.param(False, False, False, True, id="an existing volume outlives the delete of its server"),
        pytest.param(False, True, False, False, id="unless it was asked to go with it"),
        pytest.param(False, True, True, True, id="an existing volume outlives a boot that is undone"),
        pytest.param(True, False, True, False, id="a new volume does not"),
        pytest.param(True, False, False, True, id="a new volume outlives the delete of its server"),
        pytest.param(True, True, False, False, id="unless it, too, was asked to go with it"),
    ],
)
def test_released_twice_they_are_released_once(
    devices: BlockDevices, database: Database, volume: str, create: bool, discard: bool, undo_boot: bool, stays: bool
) -> None:
    volume_id = uuid() if create else volume
    call = wants(database, volume_id, create=create, discard=discard)
    devices.prep_block_devices(call)
    for _ in range(2):
        devices.release_block_devices(release(call, undo_boot=undo_boot))
    left = found(database, volume_id)
    assert (left is not None) == stays
    assert left is None or (left.status, left.server_id) == ("available", None)
    assert mappings(database) == 0


def test_releasing_takes_nothing_from_who_has_the_volume_now(
    devices: BlockDevices, database: Database, volume: str
) -> None:
    loser, winner = wants(database, volume), wants(database, volume)
    devices.prep_block_devices(winner)
    with pytest.raises(Conflict):
        devices.prep_block_devices(loser)
    devices.release_block_devices(release(loser, undo_boot=True))
    reserved = found(database, volume)
    assert reserved is not None
    assert reserved.server_id == winner.server_id


def test_a_volume_goes_where_the_least_is_promised(devices: BlockDevices, database: Database, host: Host) -> None:
    other = a_host(volumes=True, name="other", disk_gib=110)
    add(database, other)
    both = BlockDevices(database, lambda: frozenset([host.id, other.id]), TimeoutSettings())
    hosts = [both.accept_volume(AcceptVolume(request=VolumeCreate(id=uuid(), size_gib=20))).host.name for _ in range(3)]
    assert hosts == ["other", "host", "other"]


@pytest.mark.parametrize("change", [{"enabled": False}, {"volumes": False}], ids=["disabled", "without volumes"])
def test_not_every_host_keeps_volumes(database: Database, change: dict[str, bool]) -> None:
    host = a_host(**{"volumes": True} | change)
    add(database, host)
    devices = BlockDevices(database, lambda: frozenset([host.id]), TimeoutSettings())
    with pytest.raises(NoValidHost):
        devices.accept_volume(AcceptVolume(request=VolumeCreate(id=uuid(), size_gib=1)))


def test_a_volume_is_accepted_once(devices: BlockDevices, database: Database) -> None:
    add(database, Quota(project="default", volumes=1))
    call = AcceptVolume(request=VolumeCreate(id=uuid(), size_gib=1))
    assert devices.accept_volume(call) == devices.accept_volume(call)
    with pytest.raises(Conflict):
        devices.accept_volume(AcceptVolume(request=call.request.model_copy(update={"size_gib": 2})))


def test_requests_at_once_never_share_the_last_place_of_the_quota(devices: BlockDevices, database: Database) -> None:
    add(database, Quota(project="default", volume_gib=2))

    def ask(_: int) -> str:
        try:
            devices.accept_volume(AcceptVolume(request=VolumeCreate(id=uuid(), size_gib=1)))
        except HostlerError as error:
            return error.detail.code
        return "accepted"

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(ask, range(6))) == ["QuotaExceeded"] * 4 + ["accepted"] * 2


def test_finished_twice_is_once_and_then_not_forgotten(devices: BlockDevices, database: Database) -> None:
    volume_id = uuid()
    devices.accept_volume(AcceptVolume(request=VolumeCreate(id=volume_id, size_gib=1)))
    ref = VolumeRef(volume_id=volume_id)
    assert [devices.finish_volume(ref).status for _ in range(2)] == ["available"] * 2
    devices.forget_volume(ref)
    assert found(database, volume_id) is not None
    devices.begin_delete_volume(ref)
    for _ in range(2):
        devices.forget_volume(ref)
    assert found(database, volume_id) is None
    with pytest.raises(NotFound):
        devices.begin_delete_volume(ref)


def test_a_volume_that_a_server_has_is_not_deleted(devices: BlockDevices, database: Database, volume: str) -> None:
    devices.prep_block_devices(wants(database, volume))
    with pytest.raises(Conflict, match="reserved"):
        devices.begin_delete_volume(VolumeRef(volume_id=volume))
