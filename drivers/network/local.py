"""The network of one host: a bridge, a DHCP server and NAT for each network that has ports here."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from drivers.blocking import BlockingCalls
from drivers.locks import Locks
from drivers.network import bridge, nat
from drivers.network.base import Plugged
from drivers.network.dhcp import DhcpServer
from drivers.network.links import Links
from drivers.network.records import PortRecords
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name, tap_name

THREADS = 4


class LocalNetwork:
    """A `NetworkDriver`. The recorded ports are the truth; all else is made to follow them.

    A port is recorded before anything is made for it and forgotten after everything is gone, so whatever stopped
    half-way can be done again or undone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._records = PortRecords(self._directory / "ports")
        self._calls = BlockingCalls("network", THREADS)
        self._network_locks = Locks()
        self._host_lock = asyncio.Lock()  # for what the networks of a host share
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    async def bind(self, port: PortBinding) -> None:
        """See `NetworkDriver.bind`.

        Raises:
            RescheduleError: the subnet is in use for something else here, or this host lacks what it takes.
        """
        async with self._network_locks(port.network_id):
            async with self._host_lock:
                await self._calls.run(self._refuse_overlap, port)
                await self._calls.run(self._records.save, port)
            try:
                made = await self._calls.run(bridge.ensure, port)
            except (NetlinkError, OSError) as error:
                raise RescheduleError(
                    f"the bridge of network {port.network} cannot be made: {error}",
                    remedy="the worker needs CAP_NET_ADMIN and a writable /proc/sys/net",
                ) from error
            ports = self._records.of_network(port.network_id)
            await self._calls.run(self._dhcp(port.network_id).serve, ports, new_bridge=made)
            await self._apply_nat()
        self._wake()

    async def unbind(self, port_id: str) -> None:
        """See `NetworkDriver.unbind`."""
        port = self._records.get(port_id)
        if port is None:
            return
        async with self._network_locks(port.network_id):
            others = [p for p in self._records.of_network(port.network_id) if p.port_id != port_id]
            if others:
                await self._calls.run(self._dhcp(port.network_id).serve, others)
            else:
                await self._calls.run(self._dhcp(port.network_id).stop)
                await self._apply_nat(without=port.network_id)
                await self._calls.run(bridge.remove, port.network_id)
            await self._calls.run(self._records.remove, port_id)
        self._wake()

    async def plugged(self) -> AsyncIterator[Plugged]:
        """See `NetworkDriver.plugged`. A tap that is replaced by a new one is reported again."""
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        links = await self._calls.run(Links)
        loop.add_reader(links.fileno(), wake.set)
        self._watchers.add(wake)
        try:
            before: set[tuple[str, int]] = set()
            while not self._closed:
                now = {
                    (port.port_id, link.index): Plugged(port_id=port.port_id, server_id=port.server_id)
                    for port in self._records.all()
                    if (link := links.plugged(tap_name(port.port_id), bridge_name(port.network_id)))
                }
                for key in now.keys() - before:
                    yield now[key]
                before = set(now)
                await wake.wait()
                wake.clear()
                links.update()
        finally:
            self._watchers.discard(wake)
            loop.remove_reader(links.fileno())
            links.close()

    async def ports(self) -> list[PortBinding]:
        """All ports that are bound here."""
        return self._records.all()

    async def close(self) -> None:
        """See `NetworkDriver.close`."""
        self._closed = True
        self._wake()
        await self._calls.close()

    async def _apply_nat(self, without: str | None = None) -> None:
        async with self._host_lock:
            networks = {
                (bridge_name(port.network_id), _subnet(port))
                for port in self._records.all()
                if port.network_id != without
            }
            await self._calls.run(nat.apply, networks)

    def _refuse_overlap(self, port: PortBinding) -> None:
        """One routing table cannot hold a subnet twice. Another host may have room for it."""
        own, subnet = bridge_name(port.network_id), _subnet(port)
        for other in self._records.all():
            if other.network_id != port.network_id and _subnet(other).overlaps(subnet):
                raise RescheduleError(
                    f"subnet {subnet} of network {port.network} overlaps with that of network {other.network}, "
                    "which is in use on this host"
                )
        if interface := bridge.overlapping_interface(subnet, own):
            raise RescheduleError(
                f"subnet {subnet} of network {port.network} overlaps with what this host reaches by {interface}"
            )

    def _dhcp(self, network_id: str) -> DhcpServer:
        return DhcpServer(self._directory / "dhcp" / network_id, network_id)

    def _wake(self) -> None:
        for wake in self._watchers:
            wake.set()


def _subnet(port: PortBinding) -> IPv4Network:
    return IPv4Interface(f"{port.ip}/{port.prefix}").network
