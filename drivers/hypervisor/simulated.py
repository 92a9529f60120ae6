"""A hypervisor that only remembers: thousands of hosts in one process, with latencies and faults on demand.

Each guest is a JSON file in `<directory>/guests`, written before the call that changed it returns, so guests survive
the death of the process as real ones do. Only one process at a time may use a directory.
"""

import platform
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from drivers.durable import write_text
from drivers.faults import SimulatedFaults
from drivers.hypervisor.base import HeldGuest, Report
from drivers.hypervisor.power import PowerNews
from drivers.strays import strays
from hostler.contract.errors import InvalidState, NotFound, RescheduleError
from hostler.contract.guests import GuestSpec
from hostler.contract.names import is_uuid
from hostler.contract.resources import Inventory
from hostler.contract.states import PowerState
from hostler.settings import SimulatedSettings

HYPERVISOR_TYPE = "simulated"
GIB = 1024**3
RUNNING, PAUSED, SHUTDOWN = PowerState.RUNNING, PowerState.PAUSED, PowerState.SHUTDOWN

BOOT_TEXT = """\
[    0.000000] Linux version 6.1.0-simulated
[    0.021873] Memory: {ram_mib}MiB, {vcpus} CPUs
[    0.412067] virtio_blk virtio1: [vda] mounted as root
[    1.206114] Welcome to {name}, a guest that Hostler simulates
{name} login: """
HALT_TEXT = "\n[   42.000000] reboot: Power down\n"


class Taps(Protocol):
    """The part of a simulated network that a guest's taps touch. Both calls may be repeated."""

    def plug(self, port_id: str) -> None:
        """A tap of this port exists now."""

    def unplug(self, port_id: str) -> None:
        """The port's tap is gone."""


class SimulatedGuest(BaseModel):
    """What is remembered of a guest; `boots` counts how often its system came up, `host_id` is who spawned it."""

    server_id: str
    host_id: str | None = None
    name: str
    vcpus: int
    ram_mib: int
    disk_bytes: int
    ports: list[str]
    power_state: PowerState = PAUSED
    boots: int = 0

    @property
    def console(self) -> str:
        """Everything that the guest wrote to its serial console."""
        booted = BOOT_TEXT.format_map(vars(self))
        return HALT_TEXT.join([booted] * self.boots) + (HALT_TEXT if self.power_state is SHUTDOWN else "")


class SimulatedHypervisor:
    """One simulated host: the hypervisor driver of `drivers.hypervisor.base`."""

    def __init__(
        self, settings: SimulatedSettings, name: str, directory: Path, network: Taps, host_id: str | None = None
    ) -> None:
        """`host_id` None: guests do not record who spawned them."""
        self._settings = settings
        self._network = network
        self._host_id = host_id
        self._power = PowerNews()
        self._faults = SimulatedFaults(settings, name, directory)
        self._directory = directory / "guests"
        self._directory.mkdir(parents=True, exist_ok=True)
        found = filter(None, map(_read, self._directory.glob("*.json")))
        self._guests = {guest.server_id: guest for guest in found if self._is_ours(guest)}
        for guest in self._guests.values():
            self._plug(guest)  # taps outlive the process that made them; the simulated network's do not

    async def inventory(self) -> Inventory:
        """What the settings say that every simulated host has."""
        await self._faults.before("inventory")
        return Inventory(
            vcpus=self._settings.vcpus,
            ram_mib=self._settings.ram_mib,
            disk_gib=self._settings.disk_gib,
            architecture=platform.machine(),
            hypervisor_type=HYPERVISOR_TYPE,
        )

    async def free_ram_mib(self) -> int:
        """The memory that no running or paused guest holds."""
        await self._faults.before("free_ram_mib")
        used = sum(guest.ram_mib for guest in self._guests.values() if guest.power_state is not SHUTDOWN)
        return max(0, self._settings.ram_mib - used)

    async def free_disk_gib(self) -> int:
        """The space that no guest's disks may grow to, in whole GiB."""
        await self._faults.before("free_disk_gib")
        used = sum(guest.disk_bytes for guest in self._guests.values())
        return max(0, (self._settings.disk_gib * GIB - used) // GIB)

    async def spawn(self, guest: GuestSpec, base: Path | None, report: Report) -> None:
        """Remember the guest, paused, and plug its ports. `base` is not looked at.

        Raises:
            RescheduleError: there is a guest of the server here that another host spawned.
        """
        await self._faults.before("spawn", report)
        other = _read(self._path(guest.server_id))
        if other is not None and not self._is_ours(other):
            raise RescheduleError(f"host {other.host_id} has a guest of the server on this machine")
        known = self._guests.get(guest.server_id) or SimulatedGuest(
            server_id=guest.server_id,
            host_id=self._host_id,
            name=guest.name,
            vcpus=guest.vcpus,
            ram_mib=guest.ram_mib,
            disk_bytes=guest.local_disk_bytes,
            ports=[port.port_id for port in guest.ports],
        )
        self._write(known)
        self._plug(known)
        self._power.told(known.server_id, known.power_state)

    async def resume(self, server_id: str) -> None:
        """Let a paused guest run.

        Raises:
            NotFound: there is no such guest.
            InvalidState: it is off.
        """
        await self._faults.before("resume")
        guest = self._guest(server_id)
        if guest.power_state is SHUTDOWN:
            raise InvalidState(f"the guest of server {server_id} is off, so it cannot be resumed")
        if guest.power_state is PAUSED:
            self._boot(guest)

    async def destroy(self, server_id: str) -> None:
        """Forget the guest, if there is one, and unplug its ports."""
        await self._faults.before("destroy")
        guest = self._guests.pop(server_id, None)
        if guest is not None:
            self._unplug(guest)
            self._path(server_id).unlink(missing_ok=True)
            self._power.told(server_id, PowerState.NOSTATE)

    async def start(self, server_id: str) -> None:
        """Power a stopped guest on.

        Raises:
            NotFound: there is no such guest.
        """
        await self._faults.before("start")
        guest = self._guest(server_id)
        if guest.power_state is not RUNNING:
            self._boot(guest)

    async def stop(self, server_id: str, timeout: timedelta, report: Report) -> bool:
        """Power the guest off; it obeys at once, so only a `timeout` of 0 forces it.

        Raises:
            NotFound: there is no such guest.
        """
        await self._faults.before("stop", report)
        guest = self._guest(server_id)
        obeyed = guest.power_state is SHUTDOWN or timeout > timedelta(0)
        self._unplug(guest)
        self._write(guest.model_copy(update={"power_state": SHUTDOWN}))
        self._power.told(server_id, SHUTDOWN)
        return obeyed

    async def reset(self, server_id: str) -> None:
        """Boot the guest's system again, also when it is off.

        Raises:
            NotFound: there is no such guest.
        """
        await self._faults.before("reset")
        self._boot(self._guest(server_id))

    async def power_state(self, server_id: str) -> PowerState:
        """The guest's power state; NOSTATE when there is no such guest."""
        await self._faults.before("power_state")
        guest = self._guests.get(server_id)
        return guest.power_state if guest else PowerState.NOSTATE

    async def console_log(self, server_id: str, max_bytes: int) -> str:
        """The end of what a guest of that name would have written while it booted.

        Raises:
            NotFound: there is no such guest.
        """
        await self._faults.before("console_log")
        text = self._guest(server_id).console.encode()
        return text[max(0, len(text) - max_bytes) :].decode(errors="replace")

    async def guests(self) -> list[str]:
        """The UUIDs of all servers that have a guest here."""
        await self._faults.before("guests")
        return sorted(self._guests)

    async def held(self) -> list[HeldGuest]:
        """Every guest that has a file here; NOSTATE where that is not whole."""
        await self._faults.before("held")
        held = []
        for path in sorted(self._directory.glob("*.json")):
            guest = _read(path)
            if guest is not None:
                held.append(HeldGuest(guest.server_id, guest.power_state, guest.host_id))
            elif is_uuid(path.stem):
                held.append(HeldGuest(path.stem, PowerState.NOSTATE, None))
        return held

    async def strays(self) -> list[str]:
        """Files that are no guest's."""
        return strays(self._directory, lambda path: path.suffix == ".json" and is_uuid(path.stem))

    async def power_changes(self) -> AsyncGenerator[frozenset[str]]:
        """See `HypervisorDriver.power_changes`."""

        async def guests() -> list[str]:
            return list(self._guests)

        async def look(server_id: str) -> PowerState:
            guest = self._guests.get(server_id)
            return guest.power_state if guest else PowerState.NOSTATE

        self._power.look_at_all()
        async for changed in self._power.follow(guests, look):
            yield changed

    async def befall(self, server_id: str, power_state: PowerState) -> None:
        """Bring a guest into a state that nobody asked Hostler for: it halted by itself, it crashed, ...

        Raises:
            NotFound: there is no such guest.
        """
        guest = self._guest(server_id)
        if power_state is SHUTDOWN:
            self._unplug(guest)
        self._write(guest.model_copy(update={"power_state": power_state}))
        self._power.look_at(server_id)

    async def close(self) -> None:
        """End the reports."""
        self._power.close()

    def _is_ours(self, guest: SimulatedGuest) -> bool:
        return self._host_id is None or guest.host_id in (None, self._host_id)

    def _guest(self, server_id: str) -> SimulatedGuest:
        guest = self._guests.get(server_id)
        if guest is None:
            raise NotFound(f"there is no guest of server {server_id} on this host")
        return guest

    def _boot(self, guest: SimulatedGuest) -> None:
        booted = guest.model_copy(update={"power_state": RUNNING, "boots": guest.boots + 1})
        self._write(booted)
        self._plug(booted)
        self._power.told(guest.server_id, RUNNING)

    def _plug(self, guest: SimulatedGuest) -> None:
        if guest.power_state is SHUTDOWN:
            return  # a tap exists while its guest is on
        for port_id in guest.ports:
            self._network.plug(port_id)

    def _unplug(self, guest: SimulatedGuest) -> None:
        for port_id in guest.ports:
            self._network.unplug(port_id)

    def _path(self, server_id: str) -> Path:
        return self._directory / f"{server_id}.json"

    def _write(self, guest: SimulatedGuest) -> None:
        # It must survive the process, not the machine.
        write_text(self._path(guest.server_id), guest.model_dump_json(), sync=False)
        self._guests[guest.server_id] = guest


def _read(path: Path) -> SimulatedGuest | None:
    """The guest in a file; None when there is none, or the file is not whole."""
    with suppress(FileNotFoundError, ValueError):
        return SimulatedGuest.model_validate_json(path.read_text())
    return None
