"""Ports on the host: bound before their guest is spawned."""

from temporalio import activity

from activities.interfaces import ports as interface
from activities.interfaces.ports import BindPorts, PortIds
from drivers.network.base import NetworkDriver


class HostPorts(interface.HostPorts):
    """The host's half of ports."""

    def __init__(self, network: NetworkDriver) -> None:
        self._network = network

    @activity.defn(name="bind_ports")
    async def bind_ports(self, call: BindPorts) -> None:
        for port in call.ports:
            await self._network.bind(port)

    @activity.defn(name="unbind_ports")
    async def unbind_ports(self, call: PortIds) -> None:
        for port_id in call.port_ids:
            await self._network.unbind(port_id)
