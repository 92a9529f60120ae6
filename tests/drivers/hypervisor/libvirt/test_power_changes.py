"""The libvirt driver tells which guests change by themselves, through restarts of libvirtd, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import libvirt
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import DISK_BYTES
from hostler.contract.guests import GuestSpec
from hostler.contract.resources import DiskFormat
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import guest, ignore, image_ref, root_disk
from tests.drivers.hypervisor.libvirt.relay import Relay

pytestmark = pytest.mark.real

LIMIT_SECONDS = 60


@pytest.fixture
def tiny(tiny_image: Path) -> GuestSpec:
    """A guest that greets and halts its processor, but stays on."""
    return guest(root_disk(image_ref(tiny_image, DiskFormat.RAW, DISK_BYTES)))


def domain_of(spec: GuestSpec) -> libvirt.virDomain:
    return libvirt.open(LibvirtSettings().uri).lookupByUUIDString(spec.server_id)


@dataclass
class Told:
    """What a driver tells."""

    news: "asyncio.Queue[frozenset[str]]"

    async def next(self) -> frozenset[str]:
        """The next news."""
        async with asyncio.timeout(LIMIT_SECONDS):
            return await self.news.get()


@asynccontextmanager
async def following(driver: LibvirtHypervisor) -> AsyncIterator[Told]:
    told = Told(asyncio.Queue())

    async def follow() -> None:
        async for changed in driver.power_changes():
            told.news.put_nowait(changed)

    task = asyncio.create_task(follow())
    yield told
    task.cancel()
    await asyncio.wait([task])


async def test_all_guests_are_news_at_first_then_those_that_change_by_themselves(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    async with following(hypervisor) as told:
        assert await told.next() == {tiny.server_id}
        await hypervisor.resume(tiny.server_id)
        domain_of(tiny).destroy()
        assert await told.next() == {tiny.server_id}
        assert await hypervisor.power_state(tiny.server_id) is PowerState.SHUTDOWN
        domain_of(tiny).create()
        assert await told.next() == {tiny.server_id}
        domain_of(tiny).suspend()
        assert await told.next() == {tiny.server_id}
        assert await hypervisor.power_state(tiny.server_id) is PowerState.PAUSED


async def test_what_was_asked_for_is_no_news(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> None:
    other = tiny.model_copy(update={"server_id": guest().server_id})
    await hypervisor.spawn(other, tiny_image, ignore)
    async with following(hypervisor) as told:
        assert await told.next() == {other.server_id}
        await hypervisor.spawn(tiny, tiny_image, ignore)
        await hypervisor.resume(tiny.server_id)
        await hypervisor.stop(tiny.server_id, timedelta(0), ignore)
        await hypervisor.start(tiny.server_id)
        await hypervisor.reset(tiny.server_id)
        await hypervisor.destroy(tiny.server_id)
        # libvirt sends events in order: with this one, those of before have come.
        domain_of(other).destroy()
        assert await told.next() == {other.server_id}
        assert told.news.empty()


async def test_a_guest_that_vanishes_is_news(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    async with following(hypervisor) as told:
        await told.next()
        domain_of(tiny).undefine()
        domain_of(tiny).destroy()
        assert await told.next() == {tiny.server_id}
        assert await hypervisor.power_state(tiny.server_id) is PowerState.NOSTATE


async def test_when_libvirtd_was_away_all_guests_are_news(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path, host_id: str, relay: Relay
) -> None:
    other = tiny.model_copy(update={"server_id": guest().server_id})
    for spec in (tiny, other):
        await hypervisor.spawn(spec, tiny_image, ignore)
        await hypervisor.resume(spec.server_id)
    settings = LibvirtSettings(uri=relay.uri, virt_type="qemu")
    driver = LibvirtHypervisor(settings, HostSettings(), state_dir, host_id)
    async with following(driver) as told:
        assert await told.next() == {tiny.server_id, other.server_id}
        relay.stop()
        domain_of(tiny).destroy()
        relay.start()
        assert await told.next() == {tiny.server_id, other.server_id}
        assert await driver.power_state(tiny.server_id) is PowerState.SHUTDOWN
        domain_of(other).destroy()
        assert await told.next() == {other.server_id}
    await driver.close()


async def test_it_waits_for_a_libvirtd_that_is_not_there_yet(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path, host_id: str, relay: Relay
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    relay.stop()
    settings = LibvirtSettings(uri=relay.uri, virt_type="qemu")
    driver = LibvirtHypervisor(settings, HostSettings(), state_dir, host_id)
    async with following(driver) as told:
        relay.start()
        assert await told.next() == {tiny.server_id}
    await driver.close()
