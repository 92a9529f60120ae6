"""What a host says that it holds: what is there when it looks, and all of it or nothing."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from activities.host.claims import Claims
from activities.host.holdings import HostHoldings
from activities.interfaces.holdings import GuestHolding, Holdings, HoldingsQuery, PortHolding
from drivers.hypervisor.simulated import SimulatedHypervisor
from drivers.image.cache import ImageCache
from drivers.image.local import LocalImageStore
from drivers.network.simulated import SimulatedNetwork
from drivers.volume.local import LocalVolumes
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding, VolumeSpec
from hostler.contract.resources import Inventory
from hostler.contract.states import PowerState
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.activities.given import uuid

HOST = uuid()
INVENTORY = Inventory(vcpus=4, ram_mib=1024, disk_gib=10, architecture="x86_64", hypervisor_type="simulated")


def ignore(_: str) -> None:
    """Nobody listens to the reports."""


@dataclass
class Drivers:
    """A host's, in one directory."""

    directory: Path
    claims: Claims
    hypervisor: SimulatedHypervisor
    network: SimulatedNetwork
    images: ImageCache
    volumes: LocalVolumes

    async def holdings(self) -> Holdings:
        """What the host says."""
        family = HostHoldings(HOST, self.claims, self.hypervisor, self.network, self.images, self.volumes)
        return await family.list_holdings(HoldingsQuery())


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Drivers]:
    """A host that holds nothing."""
    settings = SimulatedSettings()
    network = SimulatedNetwork(settings, "sim-1", tmp_path)
    hypervisor = SimulatedHypervisor(settings, "sim-1", tmp_path, network, HOST)
    claims = Claims(tmp_path / "claims", INVENTORY, hypervisor)
    images = ImageCache(tmp_path / "cache", LocalImageStore(tmp_path / "images"))
    volumes = LocalVolumes(tmp_path / "volumes", "127.0.0.1")
    yield Drivers(tmp_path, claims, hypervisor, network, images, volumes)
    for volume_id in await volumes.volumes():
        await volumes.delete(volume_id)
    await volumes.close()


def port(server_id: str) -> PortBinding:
    """A port of the server's."""
    return PortBinding(
        port_id=uuid(),
        server_id=server_id,
        network_id=uuid(),
        network="lan",
        mac="fa:16:3e:00:00:01",
        ip="10.0.0.5",
        prefix=24,
        gateway="10.0.0.1",
    )


def guest(server_id: str) -> GuestSpec:
    """A guest of the server's."""
    return GuestSpec(
        server_id=server_id, name="web", project="default", flavor="tiny", vcpus=1, ram_mib=64, disks=[], ports=[]
    )


async def test_a_new_host_holds_nothing(host: Drivers) -> None:
    assert await host.holdings() == Holdings(host_id=HOST)


async def test_everything_that_was_made_is_there(host: Drivers) -> None:
    server_id, volume_id, image_id = uuid(), uuid(), uuid()
    await host.claims.claim_resources(ClaimSpec(server_id=server_id, vcpus=1, ram_mib=64, disk_gib=1))
    bound = port(server_id)
    await host.network.bind(bound)
    await host.hypervisor.spawn(guest(server_id), None, ignore)
    (host.directory / "cache" / image_id).touch()
    await host.volumes.create(VolumeSpec(volume_id=volume_id, size_gib=1), None, ignore)
    assert (await host.holdings()).exports == []
    await host.volumes.export(volume_id)

    assert await host.holdings() == Holdings(
        host_id=HOST,
        claims=[server_id],
        guests=[GuestHolding(server_id=server_id, power_state=PowerState.PAUSED, host_id=HOST)],
        ports=[PortHolding(port_id=bound.port_id, server_id=server_id)],
        volumes=[volume_id],
        exports=[volume_id],
        images=[image_id],
    )


async def test_it_looks_and_does_not_remember(host: Drivers) -> None:
    server_id = uuid()
    await host.claims.claim_resources(ClaimSpec(server_id=server_id, vcpus=1, ram_mib=64, disk_gib=1))
    await host.network.bind(port(server_id))
    await host.hypervisor.spawn(guest(server_id), None, ignore)
    for name in ("claims", "ports", "guests"):
        shutil.rmtree(host.directory / name)
    assert await host.holdings() == Holdings(host_id=HOST)


async def test_what_is_half_written_is_not_held_but_a_stray(host: Drivers) -> None:
    half = [host.directory / "claims" / f"{uuid()}.json", host.directory / "ports" / f".{uuid()}.json.new"]
    part = host.directory / "volumes" / f".{uuid()}.{uuid()}.part"
    for path in [*half, part]:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"server_id": "')
    assert await host.holdings() == Holdings(host_id=HOST), "somebody may be writing them"
    for path in [*half, part]:
        os.utime(path, (0, 0))
    assert set((await host.holdings()).strays) == {str(path) for path in [*half, part]}


async def test_a_host_that_cannot_see_a_part_of_it_says_nothing(host: Drivers) -> None:
    settings = SimulatedSettings(faults=[SimulatedFault(host="sim-1", call="held", kind="error", message="blind")])
    host.hypervisor = SimulatedHypervisor(settings, "sim-1", host.directory, host.network, HOST)
    await host.claims.claim_resources(ClaimSpec(server_id=uuid(), vcpus=1, ram_mib=64, disk_gib=1))
    with pytest.raises(RuntimeError, match="blind"):
        await host.holdings()
