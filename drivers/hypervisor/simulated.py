"""A hypervisor that only remembers: thousands of hosts in one process, with latencies and faults on demand.

Each guest is a JSON file in `<directory>/guests`, written before the call that changed it returns, so guests survive
the death of the process as real ones do. So do those that were set aside, in `former`, what is offered of them, in
`offers`, and the disks that were received, in `incoming`. Only one process at a time may use a directory, but for
`arriving`, where other hosts put the guests that they send.
"""

import hashlib
import platform
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from drivers.faults import SimulatedFaults
from drivers.hypervisor.base import HeldGuest, Report
from drivers.hypervisor.power import PowerNews
from drivers.hypervisor.simulated_guests import (
    NO_ADDRESS,
    Record,
    Records,
    SimulatedDisks,
    SimulatedGuest,
    new_content,
    write_image,
)
from drivers.hypervisor.simulated_migration import SimulatedMigrations
from drivers.strays import strays
from hostler.contract.errors import Conflict, InvalidState, NotFound, RescheduleError
from hostler.contract.guests import DiskOffer, DisksOffer, GuestSpec
from hostler.contract.names import is_uuid
from hostler.contract.resources import DiskFormat, Inventory
from hostler.contract.states import PowerState
from hostler.settings import SimulatedSettings

HYPERVISOR_TYPE = "simulated"
GIB = 1024**3
RUNNING, PAUSED, SHUTDOWN = PowerState.RUNNING, PowerState.PAUSED, PowerState.SHUTDOWN


class Taps(Protocol):
    """The part of a simulated network that a guest's taps touch. Both calls may be repeated."""

    def plug(self, port_id: str) -> None:
        """A tap of this port exists now."""

    def unplug(self, port_id: str) -> None:
        """The port's tap is gone."""


class SimulatedHypervisor(SimulatedMigrations):
    """One simulated host: the hypervisor driver of `drivers.hypervisor.base`."""

    def __init__(
        self, settings: SimulatedSettings, name: str, directory: Path, network: Taps, host_id: str | None = None
    ) -> None:
        """`host_id` None: guests do not record who spawned them."""
        super().__init__(directory)
        self._settings = settings
        self._network = network
        self._host_id = host_id
        self._power = PowerNews()
        self._faults = SimulatedFaults(settings, name, directory)
        self._guest_files = Records(directory / "guests", SimulatedGuest)
        self._former_files = Records(directory / "former", SimulatedGuest)
        self._incoming = Records(directory / "incoming", SimulatedDisks)
        self._offers = Records(directory / "offers", Record)
        self._guest_files.directory.mkdir(parents=True, exist_ok=True)
        self._guests = self._load(self._guest_files)
        self._formers = self._load(self._former_files)
        for guest in self._guests.values():
            self._plug(guest)  # taps outlive the process that made them; the simulated network's do not
        self._all()

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
        used = sum(guest.ram_mib for guest in self._all().values() if guest.power_state is not SHUTDOWN)
        return max(0, self._settings.ram_mib - used)

    async def free_disk_gib(self) -> int:
        """The space that no guest's disks may grow to, in whole GiB."""
        await self._faults.before("free_disk_gib")
        used = sum(guest.disk_bytes for guest in [*self._all().values(), *self._formers.values()])
        return max(0, (self._settings.disk_gib * GIB - used) // GIB)

    async def spawn(self, guest: GuestSpec, base: Path | None, report: Report) -> None:
        """Remember the guest, paused, and plug its ports. Of `base` only the beginning is read.

        Raises:
            RescheduleError: there is a guest of the server here that another host spawned, or its disks were to be
                received and are not here.
        """
        await self._faults.before("spawn", report)
        self._refuse_foreign(guest.server_id)
        known = self._known(guest.server_id)
        if known is None:
            self._remove_arrival(guest.server_id)  # what comes after this one would replace it
            known = SimulatedGuest.of(guest, self._host_id, self._content(guest, base))
        self._write(known)
        if guest.received:
            self._remove_incoming(guest.server_id)
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
        self._remove_arrival(server_id)  # first: it would come back
        guest = self._guests.pop(server_id, None)
        if guest is not None:
            self._unplug(guest)
            self._guest_files.remove(server_id)
            self._power.told(server_id, PowerState.NOSTATE)
        self._remove_incoming(server_id)

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

    async def set_aside(self, server_id: str) -> None:
        """Switch the guest off and move its file.

        Raises:
            NotFound: there is no such guest.
            InvalidState: it is on its way here.
            Conflict: one was set aside, and there is another in its place.
        """
        await self._faults.before("set_aside")
        guest = self._known(server_id)
        if server_id in self._formers:
            if guest is None:
                return
            raise Conflict(
                f"a guest of server {server_id} was set aside already, and another is in its place",
                field="server_id",
                value=server_id,
                remedy="bring the first one back, or drop it",
            )
        guest = self._guest(server_id)
        self._refuse_arriving(server_id)
        self._unplug(guest)
        former = guest.model_copy(update={"power_state": SHUTDOWN})
        self._write(former)
        self._guest_files.move(server_id, self._former_files)
        del self._guests[server_id]
        self._formers[server_id] = former
        self._power.told(server_id, PowerState.NOSTATE)

    async def bring_back(self, server_id: str) -> None:
        """Move its file back, over that of another guest of the server.

        Raises:
            RescheduleError: there is a guest of the server here that another host spawned.
        """
        await self._faults.before("bring_back")
        self._offers.remove(server_id)
        if server_id not in self._formers:
            return
        self._refuse_foreign(server_id)
        self._remove_arrival(server_id)
        if replaced := self._guests.pop(server_id, None):
            self._unplug(replaced)
        self._remove_incoming(server_id)
        self._former_files.move(server_id, self._guest_files)
        self._guests[server_id] = self._formers.pop(server_id)
        self._power.told(server_id, SHUTDOWN)

    async def drop_former(self, server_id: str) -> None:
        """Forget the guest that was set aside, if there is one."""
        await self._faults.before("drop_former")
        self._offers.remove(server_id)
        if self._formers.pop(server_id, None):
            self._former_files.remove(server_id)

    async def has_former(self, server_id: str) -> bool:
        """Whether a guest of the server was set aside."""
        await self._faults.before("has_former")
        return self._formers.get(server_id) is not None

    async def formers(self) -> list[str]:
        """The servers whose guest was set aside here, or is offered."""
        await self._faults.before("formers")
        return sorted({*self._formers, *self._offers.names()})

    async def snapshot(self, server_id: str, target: Path, quiesce: bool, report: Report) -> DiskFormat:
        """Write what the guest's root disk holds as a raw image that simulated guests boot from.

        Raises:
            NotFound: there is no such guest.
            InvalidState: `quiesce`: there is no agent in a simulated guest.
        """
        await self._faults.before("snapshot", report)
        guest = self._guest(server_id)
        if quiesce:
            raise InvalidState("a simulated guest has no agent", field="quiesce", remedy="snapshot without quiesce")
        write_image(guest.content, target)
        return DiskFormat.RAW

    async def restore(self) -> dict[str, str]:
        """See `HypervisorDriver.restore`. Nothing here is done by halves."""
        return {}

    async def check_leaving(self, server_id: str) -> None:
        """See `HypervisorDriver.check_leaving`. What is simulated travels by any way."""
        await self._faults.before("check_leaving")

    async def offer_disks(self, server_id: str, flatten: bool, report: Report) -> DisksOffer:
        """Offer what the root disk of the guest that was set aside holds: the checksum is the content.

        It needs no image, flattened or not.

        Raises:
            NotFound: none was set aside.
        """
        await self._faults.before("offer_disks", report)
        former = self._formers.get(server_id)
        if former is None:
            raise NotFound("no guest of the server was set aside here", field="server_id", value=server_id)
        disk = DiskOffer(
            file="disk",
            size_bytes=former.disk_bytes,
            checksum=former.content,
            host=NO_ADDRESS,
            port=0,
            export=server_id,
        )
        self._offers.write(Record(server_id=server_id, host_id=self._host_id))
        return DisksOffer(server_id=server_id, disks=[disk], key=hashlib.sha256(server_id.encode()).hexdigest())

    async def withdraw_offer(self, server_id: str) -> None:
        """Forget the offer."""
        await self._faults.before("withdraw_offer")
        self._offers.remove(server_id)

    async def receive_disks(self, offer: DisksOffer, report: Report) -> None:
        """Remember what is offered for `spawn`.

        Raises:
            RescheduleError: disks of the server are here that another host received.
        """
        await self._faults.before("receive_disks", report)
        there = self._incoming.read(offer.server_id)
        if there is not None and not self._is_ours(there):
            raise RescheduleError(f"host {there.host_id} has disks of the server on this machine")
        content = next((disk.checksum for disk in offer.disks), "")
        self._incoming.write(SimulatedDisks(server_id=offer.server_id, host_id=self._host_id, content=content))

    async def power_state(self, server_id: str) -> PowerState:
        """The guest's power state; NOSTATE when there is no such guest."""
        await self._faults.before("power_state")
        guest = self._known(server_id)
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
        return sorted(self._all())

    async def held(self) -> list[HeldGuest]:
        """Every guest that has a file here; NOSTATE where that is not whole, or has not come as a whole."""
        await self._faults.before("held")
        self._all()
        held = {}
        for server_id in filter(is_uuid, self._arrivals.names()):
            arrival = self._arrivals.read(server_id)
            held[server_id] = HeldGuest(server_id, PowerState.NOSTATE, arrival.host_id if arrival else None)
        for server_id in filter(is_uuid, self._incoming.names()):
            disks = self._incoming.read(server_id)
            held[server_id] = HeldGuest(server_id, PowerState.NOSTATE, disks.host_id if disks else None)
        for server_id in filter(is_uuid, self._guest_files.names()):
            guest = self._guest_files.read(server_id)
            state = guest.power_state if guest else PowerState.NOSTATE
            held[server_id] = HeldGuest(server_id, state, guest.host_id if guest else None)
        return [held[server_id] for server_id in sorted(held)]

    async def strays(self) -> list[str]:
        """Files that are no guest's."""
        return strays(self._guest_files.directory, lambda path: path.suffix == ".json" and is_uuid(path.stem))

    async def power_changes(self) -> AsyncGenerator[frozenset[str]]:
        """See `HypervisorDriver.power_changes`."""

        async def guests() -> list[str]:
            return list(self._all())

        async def look(server_id: str) -> PowerState:
            guest = self._known(server_id)
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

    def _load(self, records: Records[SimulatedGuest]) -> dict[str, SimulatedGuest]:
        """The guests of this host's."""
        found = filter(None, map(records.read, records.names()))
        return {guest.server_id: guest for guest in found if self._is_ours(guest)}

    def _is_ours(self, one: Record) -> bool:
        return self._host_id is None or one.host_id in (None, self._host_id)

    def _refuse_foreign(self, server_id: str) -> None:
        for other in (self._guest_files.read(server_id), self._arrivals.read(server_id)):
            if other is not None and not self._is_ours(other):
                raise RescheduleError(f"host {other.host_id} has a guest of the server on this machine")

    def _remove_incoming(self, server_id: str) -> None:
        disks = self._incoming.read(server_id)
        if disks is None or self._is_ours(disks):
            self._incoming.remove(server_id)

    def _content(self, guest: GuestSpec, base: Path | None) -> str:
        """What the root disk of a new guest holds."""
        if not guest.received:
            return new_content(guest, base)
        received = self._incoming.read(guest.server_id)
        if received is None or not self._is_ours(received):
            raise RescheduleError(
                f"the disks of server {guest.server_id} have not arrived here",
                remedy="let the host receive them again, from the guest that was set aside",
            )
        return received.content

    def _guest(self, server_id: str) -> SimulatedGuest:
        guest = self._known(server_id)
        if guest is None:
            raise NotFound(f"there is no guest of server {server_id} on this host")
        return guest

    def _boot(self, guest: SimulatedGuest) -> None:
        self._refuse_arriving(guest.server_id)
        changes = {"power_state": RUNNING, "boots": guest.boots + 1, "handed_over": False}
        booted = guest.model_copy(update=changes)
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

    def _write(self, guest: SimulatedGuest) -> None:
        self._guest_files.write(guest)
        self._guests[guest.server_id] = guest
