"""The host's half of a snapshot: a file where the store takes it in, and its removal."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.host.snapshots import HostSnapshots
from activities.interfaces.images import ImageId
from activities.interfaces.snapshots import SnapshotFile, SnapshotGuest
from drivers.hypervisor.simulated import SimulatedHypervisor
from drivers.image.local import LocalImageStore
from drivers.network.simulated import SimulatedNetwork
from hostler.contract.errors import InvalidState, NotFound, OperationFailed
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import DiskFormat
from hostler.settings import SimulatedSettings
from tests.activities.given import uuid

SETTINGS = SimulatedSettings(latency={"snapshot": timedelta(seconds=0.01)})


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@pytest.fixture
def hypervisor(tmp_path: Path) -> SimulatedHypervisor:
    return SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, SimulatedNetwork(SETTINGS, "sim-1", tmp_path))


@pytest.fixture
async def guest(hypervisor: SimulatedHypervisor) -> str:
    """The UUID of a server with a guest."""
    root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=2**30)
    spec = GuestSpec(server_id=uuid(), name="web", project="x", flavor="x", vcpus=1, ram_mib=128, disks=[root])
    await hypervisor.spawn(spec, None, lambda _: None)
    return spec.server_id


async def snapshot(snapshots: HostSnapshots, call: SnapshotGuest) -> SnapshotFile:
    """As a worker would."""
    file: SnapshotFile = await ActivityEnvironment().run(snapshots.snapshot_guest, call)
    return file


async def test_the_file_is_readable_by_the_control_worker_in_a_directory_of_the_stores_owner(
    hypervisor: SimulatedHypervisor, store: LocalImageStore, guest: str
) -> None:
    call = SnapshotGuest(server_id=guest, image_id=uuid())

    for _ in range(2):
        made = await snapshot(HostSnapshots(hypervisor, store), call)

    file = store.incoming(call.image_id)
    assert made == SnapshotFile(image_id=call.image_id, disk_format=DiskFormat.RAW)
    assert file.read_bytes().startswith(b"hostler simulated disk ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    assert file.parent.stat().st_uid == file.parent.parent.stat().st_uid
    assert store.images() == {}


async def test_a_directory_that_an_operator_made_keeps_its_mode(
    hypervisor: SimulatedHypervisor, store: LocalImageStore, guest: str
) -> None:
    image_id = uuid()
    directory = store.incoming(image_id).parent
    directory.mkdir(parents=True)
    directory.chmod(0o773)

    await snapshot(HostSnapshots(hypervisor, store), SnapshotGuest(server_id=guest, image_id=image_id))

    assert stat.S_IMODE(directory.stat().st_mode) == 0o773


async def test_discarded_twice_it_is_gone_and_so_is_what_never_was(
    hypervisor: SimulatedHypervisor, store: LocalImageStore, guest: str
) -> None:
    snapshots, image_id = HostSnapshots(hypervisor, store), uuid()
    await snapshots.discard_snapshot(ImageId(image_id=image_id))
    await snapshot(snapshots, SnapshotGuest(server_id=guest, image_id=image_id))

    for _ in range(2):
        await snapshots.discard_snapshot(ImageId(image_id=image_id))

    assert not store.incoming(image_id).exists()


async def test_what_cannot_be_made_leaves_no_file(
    hypervisor: SimulatedHypervisor, store: LocalImageStore, guest: str
) -> None:
    snapshots, image_id = HostSnapshots(hypervisor, store), uuid()

    with pytest.raises(InvalidState, match="no agent"):
        await snapshot(snapshots, SnapshotGuest(server_id=guest, image_id=image_id, quiesce=True))
    with pytest.raises(NotFound):
        await snapshot(snapshots, SnapshotGuest(server_id=uuid(), image_id=image_id))

    assert not store.incoming(image_id).exists()


async def test_a_host_that_cannot_write_into_the_store_says_so(
    hypervisor: SimulatedHypervisor, tmp_path: Path, guest: str
) -> None:
    (tmp_path / "file").touch()
    store = LocalImageStore(tmp_path / "file")

    with pytest.raises(OperationFailed, match="cannot write into the image store") as caught:
        await snapshot(HostSnapshots(hypervisor, store), SnapshotGuest(server_id=guest, image_id=uuid()))

    assert "incoming" in (caught.value.detail.remedy or "")
