"""What Hostler asks of the network on one host. Binding and unbinding may be repeated."""

from collections.abc import AsyncIterator
from typing import Protocol

from pydantic import BaseModel

from hostler.contract.guests import PortBinding


class Plugged(BaseModel):
    """A port's tap came up in its bridge."""

    port_id: str
    server_id: str


class NetworkDriver(Protocol):
    """The host's half of a network."""

    async def bind(self, port: PortBinding) -> None:
        """Make ready for the port's tap: the network's bridge, DHCP entry and NAT."""

    async def unbind(self, port_id: str) -> None:
        """Forget the port; the last one of a network takes bridge, DHCP server and NAT rules with it."""

    def plugged(self) -> AsyncIterator[Plugged]:
        """Every bound port that is plugged now, then each as it becomes so. Reports may repeat."""

    async def ports(self) -> list[PortBinding]:
        """All ports that are bound here, by looking."""

    async def strays(self) -> list[str]:
        """What the driver keeps that belongs to no port."""

    async def close(self) -> None:
        """Stop watching; networks stay."""
