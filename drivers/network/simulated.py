"""A host's network that only remembers: which ports are bound, in files, and which are plugged, in memory."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path

from drivers.faults import SimulatedFaults
from drivers.network.base import Plugged
from drivers.network.plugging import Key, PlugReports
from drivers.network.records import PortRecords
from hostler.contract.guests import PortBinding
from hostler.settings import SimulatedSettings


class SimulatedNetwork:
    """A `NetworkDriver` for a simulated host, with its latencies and faults.

    Bound ports outlive the process; the taps are plugged again by the simulated hypervisor when it starts.
    """

    def __init__(self, settings: SimulatedSettings, name: str, directory: Path) -> None:
        self._faults = SimulatedFaults(settings, name, directory)
        self._records = PortRecords(directory / "ports", sync=False)
        self._taps: dict[str, int] = {}
        self._numbers = count(1)
        self._reports = PlugReports()

    async def bind(self, port: PortBinding) -> None:
        """See `NetworkDriver.bind`."""
        await self._faults.before("bind")
        self._records.save(port)
        self._reports.look_again()

    async def unbind(self, port_id: str) -> None:
        """See `NetworkDriver.unbind`."""
        await self._faults.before("unbind")
        self._records.remove(port_id)
        self._reports.look_again()

    def plug(self, port_id: str) -> None:
        """A tap of this port exists now."""
        if port_id not in self._taps:
            self._taps[port_id] = next(self._numbers)
            self._reports.look_again()

    def unplug(self, port_id: str) -> None:
        """The port's tap is gone."""
        self._taps.pop(port_id, None)

    def plugged(self) -> AsyncGenerator[Plugged]:
        """See `NetworkDriver.plugged`."""
        return self._reports.follow(asyncio.Event(), self._plugged)

    async def ports(self) -> list[PortBinding]:
        """See `NetworkDriver.ports`."""
        return self._records.look()

    async def strays(self) -> list[str]:
        """See `NetworkDriver.strays`."""
        return self._records.strays()

    async def close(self) -> None:
        """See `NetworkDriver.close`."""
        self._reports.close()

    def _plugged(self) -> dict[Key, Plugged]:
        return {
            (port.port_id, self._taps[port.port_id]): Plugged(port_id=port.port_id, server_id=port.server_id)
            for port in self._records.all()
            if port.port_id in self._taps
        }
