"""Guests that move to the next host with their disks, which are made to fit there."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import DISK_BYTES
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import DiskFormat
from hostler.contract.states import PowerState
from tests.drivers.hypervisor.libvirt.guests import (
    MIB,
    domain_of,
    greeted,
    guest,
    holds,
    ignore,
    image_info,
    image_ref,
    root_disk,
    write,
)
from tests.drivers.observing import names

pytestmark = pytest.mark.real

AT_ONCE = timedelta(0)
MARKED = (0x5A, 2 * MIB, 65536)


@pytest.fixture
def spec(tiny_image: Path) -> GuestSpec:
    """A guest that greets and halts, with disks of all kinds."""
    return guest(
        root_disk(image_ref(tiny_image, DiskFormat.RAW, DISK_BYTES), 4 * MIB),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=8 * MIB),
        GuestDisk(kind=DiskKind.SWAP, device="vdc", size_bytes=MIB),
        config_drive=True,
    )


def resized(spec: GuestSpec, root_bytes: int, *ephemeral_bytes: int) -> GuestSpec:
    """The guest of another flavor, on the next host."""
    root = spec.disks[0].model_copy(update={"size_bytes": root_bytes})
    ephemeral = [
        GuestDisk(kind=DiskKind.EPHEMERAL, device=f"vd{letter}", size_bytes=size)
        for letter, size in zip("bcd", ephemeral_bytes, strict=False)
    ]
    swap = GuestDisk(kind=DiskKind.SWAP, device="vde", size_bytes=2 * MIB)
    return spec.model_copy(update={"disks": [root, *ephemeral, swap], "received": True})


@pytest.fixture
def next_image(next_dir: Path, tiny_image: Path) -> Path:
    """The image in the next host's cache, at another place."""
    return Path(shutil.copy(tiny_image, next_dir / "cached"))


@pytest.fixture
async def received(
    hypervisor: LibvirtHypervisor,
    next_host: LibvirtHypervisor,
    spec: GuestSpec,
    tiny_image: Path,
    state_dir: Path,
) -> GuestSpec:
    """The guest, set aside on the one host, its disks on the other."""
    await hypervisor.spawn(spec, tiny_image, ignore)
    await hypervisor.stop(spec.server_id, AT_ONCE, ignore)
    mark(state_dir / "guests" / spec.server_id)
    await hypervisor.set_aside(spec.server_id)
    await next_host.receive_disks(await hypervisor.offer_disks(spec.server_id, False, ignore), ignore)
    return spec


def mark(directory: Path) -> None:
    """Write something on the disks."""
    write(directory / "disk", *MARKED)
    with (directory / "disk.eph0").open("rb+") as file:
        file.write(b"moved")


def content(directory: Path, file: str) -> bytes:
    return (directory / file).read_bytes()


async def test_a_guest_boots_on_the_next_host_with_its_own_disks_grown(
    hypervisor: LibvirtHypervisor, next_host: LibvirtHypervisor, received: GuestSpec, next_dir: Path, next_image: Path
) -> None:
    bigger = resized(received, 8 * MIB, 9 * MIB, 8 * MIB)
    await next_host.spawn(bigger, next_image, ignore)
    directory = next_dir / "guests" / received.server_id
    info = image_info(directory / "disk")
    assert (info["virtual-size"], info["backing-filename"]) == (8 * MIB, str(next_image))
    assert info["backing-filename-format"] == "raw"
    assert content(directory, "disk.eph0")[:5] == b"moved"
    assert [len(content(directory, f"disk.{name}")) for name in ("eph0", "eph1", "swap")] == [9 * MIB, 8 * MIB, 2 * MIB]
    assert names(next_dir / "guests") == [received.server_id], "nothing is left of what was received"
    await next_host.resume(received.server_id)
    await greeted(next_host, received)
    await next_host.stop(received.server_id, AT_ONCE, ignore)
    assert holds(directory / "disk", *MARKED)
    await hypervisor.drop_former(received.server_id)
    assert await hypervisor.held() == []


async def test_a_disk_is_never_made_smaller(
    next_host: LibvirtHypervisor, received: GuestSpec, next_dir: Path, next_image: Path
) -> None:
    await next_host.spawn(resized(received, 2 * MIB, MIB), next_image, ignore)
    directory = next_dir / "guests" / received.server_id
    assert image_info(directory / "disk")["virtual-size"] == 4 * MIB
    assert len(content(directory, "disk.eph0")) == 8 * MIB


async def test_a_spawn_that_stopped_half_way_takes_the_disks_again(
    next_host: LibvirtHypervisor,
    received: GuestSpec,
    next_dir: Path,
    next_image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("died")

    bigger = resized(received, 8 * MIB, 8 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr("drivers.hypervisor.libvirt.domains.Domains.define", die)
        with pytest.raises(RuntimeError):
            await next_host.spawn(bigger, next_image, ignore)
    assert names(next_dir / "guests") == [received.server_id, f"{received.server_id}.incoming"]
    with monkeypatch.context() as patch:
        patch.setattr("drivers.hypervisor.libvirt.holdings.Holdings.remove_incoming", die)
        with pytest.raises(RuntimeError):
            await next_host.spawn(bigger, next_image, ignore)
    await next_host.spawn(bigger, next_image, ignore)
    assert names(next_dir / "guests") == [received.server_id]
    domain_of(received).destroy()
    assert holds(next_dir / "guests" / received.server_id / "disk", *MARKED)


async def test_a_guest_whose_disks_have_not_arrived_is_not_made(
    hypervisor: LibvirtHypervisor, next_host: LibvirtHypervisor, received: GuestSpec, next_dir: Path, next_image: Path
) -> None:
    host_id = (await next_host.held())[0].host_id
    (next_dir / "guests" / f"{received.server_id}.incoming" / "complete").unlink()
    with pytest.raises(RescheduleError, match="have not arrived") as caught:
        await next_host.spawn(resized(received, 8 * MIB, 8 * MIB), next_image, ignore)
    assert "receive them again" in str(caught.value.remedy)
    assert await next_host.held() == [HeldGuest(received.server_id, PowerState.NOSTATE, host_id)]
    await next_host.destroy(received.server_id)
    with pytest.raises(RescheduleError, match="have not arrived"):
        await next_host.spawn(resized(received, 8 * MIB, 8 * MIB), next_image, ignore)


async def test_after_the_next_host_gave_up_the_guest_comes_back_where_it_was(
    hypervisor: LibvirtHypervisor, next_host: LibvirtHypervisor, received: GuestSpec, next_image: Path, state_dir: Path
) -> None:
    await next_host.spawn(resized(received, 8 * MIB, 8 * MIB), next_image, ignore)
    await next_host.destroy(received.server_id)
    await hypervisor.bring_back(received.server_id)
    assert names(state_dir / "offers" / "servers") == []
    await hypervisor.start(received.server_id)
    await greeted(hypervisor, received)
    await hypervisor.stop(received.server_id, AT_ONCE, ignore)
    assert holds(state_dir / "guests" / received.server_id / "disk", *MARKED)
    assert image_info(state_dir / "guests" / received.server_id / "disk")["virtual-size"] == 4 * MIB


async def test_a_blank_root_disk_moves_too(
    hypervisor: LibvirtHypervisor, next_host: LibvirtHypervisor, next_dir: Path
) -> None:
    spec = guest(root_disk(size_bytes=4 * MIB))
    await hypervisor.spawn(spec, None, ignore)
    await hypervisor.set_aside(spec.server_id)
    await next_host.receive_disks(await hypervisor.offer_disks(spec.server_id, False, ignore), ignore)
    await next_host.spawn(resized(spec, 8 * MIB), None, ignore)
    info = image_info(next_dir / "guests" / spec.server_id / "disk")
    assert info["virtual-size"] == 8 * MIB
    assert "backing-filename" not in info


async def test_a_guest_whose_image_is_gone_moves_with_all_of_its_disk_and_can_still_come_back(
    hypervisor: LibvirtHypervisor,
    next_host: LibvirtHypervisor,
    received: GuestSpec,
    state_dir: Path,
    next_dir: Path,
    tiny_image: Path,
) -> None:
    offers = [await hypervisor.offer_disks(received.server_id, True, ignore) for _ in range(2)]
    assert offers[0] == offers[1]
    assert "backing-filename" not in image_info(state_dir / "guests" / f"{received.server_id}.former" / "disk")
    await next_host.receive_disks(offers[0], ignore)
    alone = resized(received, 8 * MIB, 8 * MIB)
    alone.disks[0].image = None
    await next_host.spawn(alone, None, ignore)
    await next_host.resume(received.server_id)
    await greeted(next_host, received)
    await next_host.destroy(received.server_id)

    await hypervisor.bring_back(received.server_id)
    assert str(tiny_image) not in domain_of(received).XMLDesc()
    await hypervisor.start(received.server_id)
    await greeted(hypervisor, received)
    await hypervisor.stop(received.server_id, AT_ONCE, ignore)
    assert holds(state_dir / "guests" / received.server_id / "disk", *MARKED)


async def test_a_disk_that_stands_alone_is_not_laid_over_the_image_that_its_server_is_said_to_be_of(
    hypervisor: LibvirtHypervisor,
    next_host: LibvirtHypervisor,
    received: GuestSpec,
    next_dir: Path,
    next_image: Path,
) -> None:
    await next_host.receive_disks(await hypervisor.offer_disks(received.server_id, True, ignore), ignore)

    await next_host.spawn(resized(received, 8 * MIB, 8 * MIB), next_image, ignore)

    disk = next_dir / "guests" / received.server_id / "disk"
    info = image_info(disk)
    assert (info["virtual-size"], "backing-filename" in info) == (8 * MIB, False)
    assert str(next_image) not in domain_of(received).XMLDesc()
    await next_host.resume(received.server_id)
    await greeted(next_host, received)
    await next_host.stop(received.server_id, AT_ONCE, ignore)
    assert holds(disk, *MARKED)


async def test_a_disk_over_an_image_that_nobody_names_is_refused(
    next_host: LibvirtHypervisor, received: GuestSpec
) -> None:
    alone = resized(received, 8 * MIB, 8 * MIB)
    alone.disks[0].image = None
    with pytest.raises(RescheduleError, match="nothing says which that is"):
        await next_host.spawn(alone, None, ignore)
