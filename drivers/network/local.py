"""The network of one host: a bridge, a DHCP server and NAT for each network that has ports here."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from drivers.blocking import BlockingCalls
from drivers.locks import Locks
from drivers.network import bridge, nat
from drivers.network.base import Plugged
from drivers.network.dhcp import DhcpServer
from drivers.network.links import Links, Lost
from drivers.network.plugging import Key, PlugReports
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
        self._leaving: set[str] = set()  # networks of which the last port is being unbound
        self._reports = PlugReports()

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
        self._reports.look_again()

    async def unbind(self, port_id: str) -> None:
        """See `NetworkDriver.unbind`."""
        port = self._records.get(port_id)
        if port is None:
            return
        async with self._network_locks(port.network_id):
            others = [p for p in self._records.of_network(port.network_id) if p.port_id != port_id]
            if others:
                await self._calls.run(self._dhcp(port.network_id).serve, others)
                await self._calls.run(self._records.remove, port_id)
            else:
                await self._remove_network(port)
        self._reports.look_again()

    async def plugged(self) -> AsyncGenerator[Plugged]:
        """See `NetworkDriver.plugged`. A tap that is replaced by a new one is reported again."""
        while True:
            links = await self._calls.run(Links)
            try:
                async with aclosing(self._follow(links)) as reports:
                    async for report in reports:
                        yield report
                return
            except Lost:
                continue  # reports repeat, but none is missed
            finally:
                links.close()

    async def ports(self) -> list[PortBinding]:
        """All ports that are bound here."""
        return self._records.all()

    async def close(self) -> None:
        """See `NetworkDriver.close`."""
        self._reports.close()
        await self._calls.close()

    async def _remove_network(self, last: PortBinding) -> None:
        """Remove all that the network has here, and at the end its last port."""
        self._leaving.add(last.network_id)
        try:
            await self._calls.run(self._dhcp(last.network_id).stop)
            await self._apply_nat()
            await self._calls.run(bridge.remove, last.network_id)
            await self._calls.run(self._records.remove, last.port_id)
        finally:
            self._leaving.discard(last.network_id)

    async def _apply_nat(self) -> None:
        async with self._host_lock:
            networks = {
                (bridge_name(port.network_id), _subnet(port))
                for port in self._records.all()
                if port.network_id not in self._leaving
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

    async def _follow(self, links: Links) -> AsyncGenerator[Plugged]:
        wake = asyncio.Event()

        def changed() -> None:
            links.update()
            wake.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(links.fileno(), changed)
        try:
            async with aclosing(self._reports.follow(wake, lambda: self._plugged(links))) as reports:
                async for report in reports:
                    yield report
        finally:
            loop.remove_reader(links.fileno())

    def _plugged(self, links: Links) -> dict[Key, Plugged]:
        """The bound ports whose tap is up in its bridge."""
        return {
            (port.port_id, link.index): Plugged(port_id=port.port_id, server_id=port.server_id)
            for port in self._records.all()
            if (link := links.plugged(tap_name(port.port_id), bridge_name(port.network_id)))
        }


def _subnet(port: PortBinding) -> IPv4Network:
    return IPv4Interface(f"{port.ip}/{port.prefix}").network
