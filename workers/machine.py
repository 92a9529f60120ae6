"""One host of a worker's process: who it is, its drivers, and the activities that they serve.

With `host.driver` "simulated" one process is any number of hosts, each with its own identity, queue and registration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.host.claims import Claims
from activities.host.guests import Guests
from activities.host.holdings import HostHoldings
from activities.host.images import HostImages
from activities.host.migrating import Migrating
from activities.host.ports import HostPorts
from activities.host.snapshots import HostSnapshots
from activities.host.volumes import HostVolumes
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.base import ImageStore
from drivers.image.cache import ImageCache
from drivers.image.local import LocalImageStore
from drivers.network.base import NetworkDriver
from drivers.volume.base import VolumeDriver
from hostler.contract.resources import HostRegistration, Inventory
from hostler.settings import HostSettings, Settings
from workers.activities import methods
from workers.host_identity import host_id, machine_id


@dataclass
class Machine:
    """One host: who it is, and its drivers.

    `takes_volumes`: whether new ones may be kept here. `shares_images`: other hosts have the same image cache.
    """

    id: str
    name: str
    zone: str
    directory: Path
    inventory: Inventory
    hypervisor: HypervisorDriver
    network: NetworkDriver
    images: ImageCache
    store: ImageStore
    volumes: VolumeDriver | None = None
    takes_volumes: bool = True
    durable: bool = True
    machine_id: str | None = None
    shares_images: bool = False

    def activities(self) -> list[Callable[..., Any]]:
        """Every activity of this host."""
        claims = Claims(self.directory / "claims", self.inventory, self.hypervisor, self.durable)
        families: list[object] = [
            claims,
            Guests(self.hypervisor, self.images),
            Migrating(self.hypervisor, self.images),
            HostSnapshots(self.hypervisor, self.store),
            HostPorts(self.network),
            HostImages(self.images),
            self.holdings(claims),
        ]
        if self.volumes is not None:
            families.append(HostVolumes(self.volumes, self.images))
        return [method for family in families for method in methods(family)]

    def holdings(self, claims: Claims) -> HostHoldings:
        """What it holds."""
        shares = self.shares_images
        return HostHoldings(
            self.id, claims, self.hypervisor, self.network, self.images, self.volumes, shares_images=shares
        )

    def registration(self) -> HostRegistration:
        """What the host says of itself."""
        return HostRegistration(
            id=self.id,
            name=self.name,
            zone=self.zone,
            inventory=self.inventory,
            volumes=self.volumes is not None and self.takes_volumes,
            machine_id=self.machine_id,
        )

    async def close(self) -> None:
        """Let go of the drivers' resources."""
        await self.hypervisor.close()
        await self.network.close()
        if self.volumes is not None:
            await self.volumes.close()


async def make_machines(settings: Settings) -> list[Machine]:
    """This process's hosts with their drivers."""
    if settings.host.driver == "simulated":
        return await simulated_machines(settings)
    return [await libvirt_machine(settings)]


async def libvirt_machine(settings: Settings) -> Machine:
    """The real host that this is."""
    # libvirt and netlink are imported only where they are used: a simulated cloud needs neither.
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
    from drivers.network.local import LocalNetwork
    from drivers.network.overlay import Underlay
    from drivers.volume.local import LocalVolumes

    directory, host = settings.state_dir, settings.host
    hypervisor = LibvirtHypervisor(host.libvirt, host, directory, host_id(directory))
    volumes = LocalVolumes(directory / "volumes", host.volume_address)
    await volumes.restart_exports()
    underlay = Underlay(host.overlay_address, host.overlay_group) if host.overlay_address else None
    network = LocalNetwork(directory / "network", host_id(directory), underlay)
    await network.restore()
    await hypervisor.restore()
    store = LocalImageStore(settings.images_dir)
    return Machine(
        id=host_id(directory),
        name=host.name,
        zone=host.zone,
        directory=directory,
        inventory=offered(await hypervisor.inventory(), host),
        hypervisor=hypervisor,
        network=network,
        images=ImageCache(directory / "cache", store),
        store=store,
        volumes=volumes,
        takes_volumes=host.volumes,
        machine_id=machine_id(),
    )


async def simulated_machines(settings: Settings) -> list[Machine]:
    """As many hosts as the settings say. They share one image cache: its content is not what is simulated."""
    from drivers.hypervisor.simulated import SimulatedHypervisor
    from drivers.network.simulated import SimulatedNetwork
    from drivers.volume.simulated import SimulatedVolumes

    simulated, root = settings.host.simulated, settings.state_dir / "simulated"
    store = LocalImageStore(settings.images_dir)
    images = ImageCache(root / "cache", store)
    machines = []
    for number in range(1, max(1, simulated.hosts) + 1):
        name = f"{simulated.name_prefix}{number}"
        network = SimulatedNetwork(simulated, name, root / name)
        hypervisor = SimulatedHypervisor(simulated, name, root / name, network, host_id(root / name))
        machines.append(
            Machine(
                id=host_id(root / name),
                name=name,
                zone=simulated.zone,
                directory=root / name,
                inventory=await hypervisor.inventory(),
                hypervisor=hypervisor,
                network=network,
                images=images,
                store=store,
                volumes=SimulatedVolumes(simulated, name, root / name) if simulated.volumes else None,
                durable=False,
                shares_images=simulated.hosts > 1,
            )
        )
    return machines


def offered(inventory: Inventory, host: HostSettings) -> Inventory:
    """What the machine has, with what the settings say that Hostler may use of it."""
    return inventory.model_copy(
        update={
            "reserved_ram_mib": host.reserved_ram_mib,
            "reserved_disk_gib": host.reserved_disk_gib,
            "cpu_ratio": host.cpu_ratio,
            "ram_ratio": host.ram_ratio,
            "disk_ratio": host.disk_ratio,
        }
    )
