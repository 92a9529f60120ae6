"""The networks of one host: each that has ports here has a bridge, a DHCP server, NAT, and may span to other hosts."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from drivers.blocking import BlockingCalls
from drivers.locks import Locks
from drivers.network import bridge, nat, nftables, overlay
from drivers.network.base import Plugged
from drivers.network.dhcp import DhcpServer
from drivers.network.links import Links, Lost
from drivers.network.overlay import Underlay, overlay_name
from drivers.network.plugging import Key, PlugReports
from drivers.network.records import PortRecords
from drivers.revival import Revival
from drivers.strays import strays
from hostler.contract.errors import HostlerError, RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name, tap_name

logger = logging.getLogger(__name__)

THREADS = 4


class LocalNetwork:
    """A `NetworkDriver`. The recorded ports are the truth; all else is made to follow them.

    A port is recorded before anything is made for it and forgotten after everything is gone, so whatever stopped
    half-way can be done again or undone. A DHCP server that dies is started again at once.
    """

    def __init__(self, directory: Path, owner: str, underlay: Underlay | None = None) -> None:
        """`owner`: the host's UUID. A machine may be a host of several clouds, each with rules of its own.

        `underlay` joins networks to their like on other hosts; without one they are this host's own.
        """
        self._directory = directory.absolute()
        self._owner = owner
        self._underlay = underlay
        self._fenced = underlay is not None
        self._records = PortRecords(self._directory / "ports")
        self._calls = BlockingCalls("network", THREADS)
        self._network_locks = Locks()
        self._host_lock = asyncio.Lock()  # for what the networks of a host share
        self._reports = PlugReports()
        self._revival = Revival("the DHCP server of network", self._revive)

    async def bind(self, port: PortBinding) -> None:
        """See `NetworkDriver.bind`.

        Raises:
            RescheduleError: the subnet is in use for something else here, or this host lacks what it takes.
        """
        async with self._network_locks(port.network_id):
            async with self._host_lock:
                await self._calls.run(self._refuse_overlap, port)
                await self._calls.run(self._records.save, port)
            await self._make_network(port)
            await self._apply_rules()
            await self._span(port.network_id)
        self._reports.look_again()

    async def unbind(self, port_id: str) -> None:
        """See `NetworkDriver.unbind`.

        Whatever is missing, the port goes: that the others of its network cannot be served is no reason to keep it.
        """
        port = self._records.get(port_id)
        if port is None:
            return
        async with self._network_locks(port.network_id):
            others = [p for p in self._records.of_network(port.network_id) if p.port_id != port_id]
            if others:
                with _logged(f"the other ports of network {port.network} are not served"):
                    await self._serve(port.network_id, others)
                await self._calls.run(self._records.remove, port_id)
            else:
                await self._remove_network(port)
        self._reports.look_again()

    async def restore(self) -> None:
        """Make again what a reboot took from the recorded ports. What cannot be made is logged and stops nothing else.

        Binding a port of such a network, or the next worker, tries it again.
        """
        self._fenced = self._fenced or bool(await self._calls.run(overlay.devices, self._owner))
        networks = {port.network_id: port for port in self._records.all()}
        await asyncio.gather(*(self._restore(port) for port in networks.values()))
        with _logged("NAT of this host's networks, and what joins them to those of other hosts, is not restored"):
            await self._apply_rules()
            await asyncio.gather(*(self._restore_span(port) for port in networks.values()))
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
        """See `NetworkDriver.ports`."""
        return await self._calls.run(self._records.look)

    async def strays(self) -> list[str]:
        """See `NetworkDriver.strays`: records that are not whole, what is left of networks without a port."""
        return await self._calls.run(self._strays)

    async def close(self) -> None:
        """See `NetworkDriver.close`."""
        self._reports.close()
        await self._revival.close()
        await self._calls.close()

    async def _restore(self, port: PortBinding) -> None:
        """Make the port's network again."""
        async with self._network_locks(port.network_id):
            with _logged(f"network {port.network} ({port.network_id}) is not restored"):
                await self._calls.run(self._refuse_overlap, port)
                await self._make_network(port)

    async def _restore_span(self, port: PortBinding) -> None:
        """Join the port's network to its like again; by itself it works anyway."""
        async with self._network_locks(port.network_id):
            with _logged(f"network {port.network} ({port.network_id}) is not joined to that of other hosts"):
                await self._span(port.network_id)

    async def _make_network(self, port: PortBinding) -> None:
        """Make sure that the port's network has its bridge, and a DHCP server for its recorded ports."""
        try:
            made = await self._calls.run(bridge.ensure, port)
        except (NetlinkError, OSError) as error:
            raise RescheduleError(
                f"the bridge of network {port.network} cannot be made: {error}",
                remedy="the worker needs CAP_NET_ADMIN and a writable /proc/sys/net",
            ) from error
        await self._serve(port.network_id, self._records.of_network(port.network_id), new_bridge=made)

    async def _span(self, network_id: str) -> None:
        """Join the network to its like on other hosts, or part it from them. The rules that fence it must be there."""
        await self._calls.run(self._join, network_id)

    def _join(self, network_id: str) -> None:
        spanning = self._spanning().get(network_id)
        if self._underlay is None or spanning is None or not bridge.exists(network_id):
            overlay.disconnect(network_id)
        else:
            overlay.connect(spanning, self._underlay, self._owner)

    async def _serve(self, network_id: str, ports: list[PortBinding], *, new_bridge: bool = False) -> None:
        """Have the network's DHCP server serve these ports, and see that it goes on doing so."""
        server = self._dhcp(network_id)
        self._revival.pause(network_id)
        try:
            await self._calls.run(server.serve, ports, new_bridge=new_bridge)
        finally:  # one that does not start again is tried again: the network's other guests need it
            self._revival.watch(network_id, await self._calls.run(server.handle))

    async def _revive(self, network_id: str) -> None:
        async with self._network_locks(network_id):
            if ports := self._records.of_network(network_id):
                await self._make_network(ports[0])
                await self._apply_rules()
                await self._span(network_id)

    async def _remove_network(self, last: PortBinding) -> None:
        """Remove all that the network has here, and at the end its last port."""
        self._revival.forget(last.network_id)
        await self._calls.run(self._dhcp(last.network_id).stop)
        await self._calls.run(overlay.disconnect, last.network_id)
        await self._calls.run(bridge.remove, last.network_id)
        await self._apply_rules()
        await self._calls.run(self._records.remove, last.port_id)

    async def _apply_rules(self) -> None:
        async with self._host_lock:
            await self._calls.run(self._write_rules)

    def _write_rules(self) -> None:
        """Rules for the networks that have a bridge: not for one that is going, nor for one that was not restored."""
        networks = {port.network_id: port for port in self._records.all() if bridge.exists(port.network_id)}
        routed = [(bridge_name(network_id), _subnet(port)) for network_id, port in networks.items()]
        script = nat.script(self._owner, routed, overlay=self._underlay is not None)
        if self._fenced:  # without an overlay, the kernel need not know this kind of rules
            script += overlay.fence(self._owner, [p for i, p in self._spanning().items() if i in networks])
        nftables.apply(script)

    def _spanning(self) -> dict[str, PortBinding]:
        """A port of each network that spans hosts, by network. Ports that were bound by older code know no VNI."""
        return {port.network_id: port for port in self._records.all() if self._underlay and port.vni is not None}

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

    def _strays(self) -> list[str]:
        overlays = overlay.devices(self._owner)
        networks = {port.network_id for port in self._records.look()}
        servers = strays(self._directory / "dhcp", lambda path: path.name in networks)
        wanted = {overlay_name(network_id) for network_id in networks}
        # Looked at twice: one that was there before its last port's record went is going.
        left = [device for device in overlay.devices(self._owner) if device in overlays and device not in wanted]
        return [*self._records.strays(), *servers, *left]

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


@contextmanager
def _logged(consequence: str) -> Iterator[None]:
    """Log what goes wrong, and go on."""
    try:
        yield
    except HostlerError as error:
        logger.error("%s: %s%s", consequence, error, f" ({error.remedy})" if error.remedy else "")
    except Exception:
        logger.exception(consequence)


def _subnet(port: PortBinding) -> IPv4Network:
    return IPv4Interface(f"{port.ip}/{port.prefix}").network
