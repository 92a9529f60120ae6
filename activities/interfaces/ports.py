"""Ports: addresses on the control worker, their binding on the host."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import ServerRef
from hostler.contract.guests import PortBinding
from hostler.contract.servers import NetworkRequest


class AllocatePorts(BaseModel):
    """One port for each network, in order."""

    server_id: str
    run_id: str
    name: str
    networks: list[NetworkRequest]


class BindPorts(BaseModel):
    """The ports that a host is to make ready."""

    server_id: str
    ports: list[PortBinding]


class PortIds(BaseModel):
    """The ports that a host is to forget."""

    server_id: str
    port_ids: list[str]


class Ports(ABC):
    """Owner of the port rows: MAC and fixed IP."""

    @activity.defn(name="allocate_ports")
    @abstractmethod
    def allocate_ports(self, call: AllocatePorts) -> list[PortBinding]:
        """A MAC and an address for each.

        Raises:
            Conflict: the address is taken, or the network is full.
        """

    @activity.defn(name="release_ports")
    @abstractmethod
    def release_ports(self, call: ServerRef) -> None:
        """Give all of the server's ports back."""


class HostPorts(ABC):
    """The host's half."""

    @activity.defn(name="bind_ports")
    @abstractmethod
    async def bind_ports(self, call: BindPorts) -> None:
        """Bridge, DHCP entry and NAT for each port."""

    @activity.defn(name="unbind_ports")
    @abstractmethod
    async def unbind_ports(self, call: PortIds) -> None:
        """Forget them."""
