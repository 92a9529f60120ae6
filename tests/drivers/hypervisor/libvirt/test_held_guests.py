"""What the libvirt driver finds on the machine, whoever made it, and that it touches only its own host's."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt import LibvirtHypervisor
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import GuestSpec
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import domain_of, ignore

pytestmark = pytest.mark.real


@pytest.fixture
async def reimaged(state_dir: Path) -> AsyncIterator[LibvirtHypervisor]:
    """The same machine and directory after its host's UUID was lost: it is another host now."""
    driver = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir, str(uuid4()))
    yield driver
    await driver.close()


async def test_a_guest_is_found_with_its_power_state_and_who_spawned_it(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, host_id: str
) -> None:
    assert await hypervisor.held() == []
    await hypervisor.spawn(tiny, tiny_image, ignore)
    assert await hypervisor.held() == [HeldGuest(tiny.server_id, PowerState.PAUSED, host_id)]
    domain_of(tiny).destroy()
    assert await hypervisor.held() == [HeldGuest(tiny.server_id, PowerState.SHUTDOWN, host_id)]


async def test_files_without_a_domain_are_a_guest_without_a_state(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, host_id: str
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    domain_of(tiny).destroy()
    domain_of(tiny).undefine()
    assert await hypervisor.held() == [HeldGuest(tiny.server_id, PowerState.NOSTATE, host_id)]


async def test_a_domain_without_files_is_a_guest_and_so_is_an_empty_directory(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path, host_id: str
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    shutil.rmtree(state_dir / "guests" / tiny.server_id)
    empty = str(uuid4())
    (state_dir / "guests" / empty).mkdir()
    expected = [
        HeldGuest(tiny.server_id, PowerState.PAUSED, host_id),
        HeldGuest(empty, PowerState.NOSTATE, None),
    ]
    assert await hypervisor.held() == sorted(expected)


async def test_after_the_hosts_uuid_was_lost_its_guests_are_found_and_left_alone(
    hypervisor: LibvirtHypervisor,
    reimaged: LibvirtHypervisor,
    tiny: GuestSpec,
    tiny_image: Path,
    state_dir: Path,
    host_id: str,
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    held = await hypervisor.held()

    assert await reimaged.held() == held
    assert await reimaged.guests() == []
    await reimaged.destroy(tiny.server_id)
    with pytest.raises(RescheduleError, match=f"which is of host {host_id}"):
        await reimaged.spawn(tiny, tiny_image, ignore)

    assert await hypervisor.held() == held
    assert (state_dir / "guests" / tiny.server_id / "disk").exists()


async def test_files_of_the_lost_host_are_left_alone_too(
    hypervisor: LibvirtHypervisor, reimaged: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    domain_of(tiny).destroy()
    domain_of(tiny).undefine()
    await reimaged.destroy(tiny.server_id)
    with pytest.raises(RescheduleError, match="has files of the server's"):
        await reimaged.spawn(tiny, tiny_image, ignore)
    assert (state_dir / "guests" / tiny.server_id / "disk").exists()
