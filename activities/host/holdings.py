"""What this host holds, gathered from its drivers by looking."""

import asyncio

from temporalio import activity

from activities.host.claims import Claims
from activities.interfaces import holdings as interface
from activities.interfaces.holdings import GuestHolding, Holdings, HoldingsQuery, PortHolding
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.cache import ImageCache
from drivers.network.base import NetworkDriver
from drivers.volume.base import VolumeDriver


class HostHoldings(interface.HostHoldings):
    """The host's own book."""

    def __init__(
        self,
        host_id: str,
        claims: Claims,
        hypervisor: HypervisorDriver,
        network: NetworkDriver,
        images: ImageCache,
        volumes: VolumeDriver | None,
        *,
        shares_images: bool = False,
    ) -> None:
        self._host_id = host_id
        self._claims = claims
        self._hypervisor = hypervisor
        self._network = network
        self._images = images
        self._volumes = volumes
        self._shares_images = shares_images

    @activity.defn(name="list_holdings")
    async def list_holdings(self, call: HoldingsQuery) -> Holdings:
        """See the interface.

        Raises:
            Unavailable: some of it cannot be seen now. A part is no answer: what is missing in it would seem gone.
        """
        volumes = self._volumes
        return Holdings(
            host_id=self._host_id,
            claims=await asyncio.to_thread(self._claims.held),
            formers=await self._formers(),
            guests=[GuestHolding(**guest._asdict()) for guest in await self._hypervisor.held()],
            ports=[PortHolding(port_id=p.port_id, server_id=p.server_id) for p in await self._network.ports()],
            volumes=await volumes.volumes() if volumes else [],
            exports=await volumes.exports() if volumes else [],
            images=await asyncio.to_thread(self._images.cached),
            shares_images=self._shares_images,
            strays=[
                *await asyncio.to_thread(self._claims.strays),
                *await self._hypervisor.strays(),
                *await self._network.strays(),
                *(await volumes.strays() if volumes else []),
                *await asyncio.to_thread(self._images.strays),
            ],
        )

    async def _formers(self) -> list[str]:
        claims = await asyncio.to_thread(self._claims.formers)
        return sorted({*claims, *await self._hypervisor.formers()})
