"""The hypervisor driver for libvirt: what `HypervisorDriver` asks, step by step, each blocking step on a thread."""

import asyncio
import platform
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import psutil

from drivers.blocking import BlockingCalls
from drivers.hypervisor.base import HeldGuest, Report
from drivers.hypervisor.libvirt import migration_job
from drivers.hypervisor.libvirt.arriving import Arriving
from drivers.hypervisor.libvirt.config_drive import write_config_drive
from drivers.hypervisor.libvirt.connection import Connection, libvirt_errors
from drivers.hypervisor.libvirt.console import read_end
from drivers.hypervisor.libvirt.describing import describe
from drivers.hypervisor.libvirt.domain_xml import Mark, domain_xml, with_processor
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.events import watch
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.former import Formers
from drivers.hypervisor.libvirt.holdings import Holdings
from drivers.hypervisor.libvirt.leaving import END_LIMIT, Leaving
from drivers.hypervisor.libvirt.offers import Offers
from drivers.hypervisor.libvirt.probe import VirtType, probe_virt_type
from drivers.hypervisor.libvirt.processors import refuse_unusable
from drivers.hypervisor.libvirt.receiving import Receiving
from drivers.hypervisor.libvirt.shared import SharedDisks, direct_io
from drivers.hypervisor.libvirt.snapshots import Snapshots
from drivers.hypervisor.libvirt.spawning import as_they_are, kept_disks, make_files
from drivers.hypervisor.power import PowerNews
from hostler.contract.errors import HostlerError, NotFound, Unavailable
from hostler.contract.guests import (
    Arrival,
    DisksOffer,
    GuestDescription,
    GuestSpec,
    Incoming,
    MigrationLimits,
    MigrationReport,
    Whereabouts,
)
from hostler.contract.names import is_uuid
from hostler.contract.resources import DiskFormat, Inventory
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings

GIB = 1 << 30
MIB = 1 << 20
BUTTON_INTERVAL = timedelta(seconds=10)  # a guest that is still booting does not hear the first press
POLL_INTERVAL = timedelta(seconds=0.5)


class LibvirtHypervisor:
    """A `HypervisorDriver`. Calls for one guest take turns; calls for different guests do not wait for each other."""

    def __init__(self, settings: LibvirtSettings, host: HostSettings, state_dir: Path, host_id: str) -> None:
        self._settings = settings
        self._host_id = host_id
        self._state_dir = state_dir.absolute()
        self._guests_dir = self._state_dir / "guests"
        self._connection = Connection(settings.uri)
        self._domains = Domains(self._connection, self._guests_dir, host_id)
        self._shared = SharedDisks(settings.shared_disks, host_id, self._connection)
        self._blocking = BlockingCalls("libvirt", host.concurrency)
        self._holdings = Holdings(self._domains, self._guests_dir, host_id, self._shared.home)
        self._formers = Formers(self._domains, self._holdings)
        self._snapshots = Snapshots(self._domains, self._blocking)
        self._offers = Offers(self._state_dir / "offers", host.migration_address, self._blocking)
        self._receiving = Receiving(host_id, self._blocking)
        self._arriving = Arriving(self._connection, self._domains, self._holdings, self._shared, host, host_id)
        self._leaving = Leaving(settings.uri, self._domains, self._blocking, host.parallel_live_migrations)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._power = PowerNews()
        self._probing = asyncio.Lock()
        self._virt_type: VirtType | None = None

    async def virt_type(self) -> VirtType:
        """What guests here are made of, and why; the first call tries it out.

        Raises:
            Unavailable: libvirt does not answer, or no guest starts here.
        """
        async with self._probing:
            if self._virt_type is None:
                self._virt_type = await self._blocking.run(self._probe)
            return self._virt_type

    async def inventory(self) -> Inventory:
        """See `HypervisorDriver.inventory`. Finds the virtualisation type out, so that no boot has to wait for it.

        Raises:
            InvalidRequest: guests cannot have here the processor that the settings name.
        """
        await self._blocking.run(self._shared.make_home)
        found = await self.virt_type()
        await self._blocking.run(refuse_unusable, self._connection, self._settings.cpu_model, found.type)
        return await self._blocking.run(self._take_inventory)

    async def free_ram_mib(self) -> int:
        """See `HypervisorDriver.free_ram_mib`."""
        return int(psutil.virtual_memory().available // MIB)

    async def free_disk_gib(self) -> int:
        """See `HypervisorDriver.free_disk_gib`."""
        usage = await self._blocking.run(shutil.disk_usage, self._shared.home or self._state_dir)
        return usage.free // GIB

    async def spawn(self, guest: GuestSpec, base: Path | None, report: Report) -> None:
        """See `HypervisorDriver.spawn`. QEMU's user must be able to read `base`.

        The domain is defined last: one of the same spec says that all is made; any other is replaced.
        """
        files = self._files(guest.server_id)
        virt_type = await self.virt_type()
        async with self._turn(guest.server_id):
            mark = Mark.of(guest, files, self._host_id)
            if await self._blocking.run(self._domains.mark, guest.server_id) != mark:
                await self._blocking.run(self._holdings.refuse_foreign, files)
                kept = await self._blocking.run(kept_disks, guest, files)
                guest = await self._blocking.run(as_they_are, guest, kept)
                guest, taken_over = await self._blocking.run(self._shared.taken_over, guest, base)
                await self._blocking.run(self._holdings.remove, files)
                report("making the disks")
                await self._blocking.run(make_files, guest, files, base, self._host_id, {**kept, **taken_over})
                await self._blocking.run(self._shared.give_to_qemu, files)
                if guest.config_drive:
                    report("making the config drive")
                    await self._blocking.run(write_config_drive, guest, files.config_drive)
                report("defining the domain")
                uncached = await self._blocking.run(direct_io, files)
                model = self._settings.cpu_model
                xml = domain_xml(guest, mark, files, base, virt_type.type, uncached, model)
                await self._blocking.run(self._domains.define, xml)
            if guest.received:
                await self._blocking.run(self._holdings.remove_incoming, files)
            report("starting QEMU")
            await self._blocking.run(self._domains.power_on, guest.server_id, paused=True)
            self._power.told(guest.server_id, PowerState.PAUSED)

    async def resume(self, server_id: str) -> None:
        """See `HypervisorDriver.resume`."""
        async with self._turn(server_id):
            await self._blocking.run(self._domains.resume, server_id)
            self._power.told(server_id, PowerState.RUNNING)

    async def destroy(self, server_id: str) -> None:
        """See `HypervisorDriver.destroy`.

        Raises:
            Unavailable: the guest is on its way to another host by post-copy, which goes on.
        """
        files = self._files(server_id)
        async with self._turn(server_id):
            await self._leaving.refuse_crossing(server_id)
            await self._blocking.run(self._holdings.remove, files)
            await self._blocking.run(self._holdings.remove_incoming, files)
            self._power.told(server_id, PowerState.NOSTATE)

    async def start(self, server_id: str) -> None:
        """See `HypervisorDriver.start`. A paused guest runs on."""
        async with self._turn(server_id):
            await self._blocking.run(self._domains.power_on, server_id)
            self._power.told(server_id, PowerState.RUNNING)

    async def stop(self, server_id: str, timeout: timedelta, report: Report) -> bool:
        """See `HypervisorDriver.stop`. A paused guest cannot obey, so its plug is pulled at once.

        Raises:
            NotFound: no such guest here.
        """
        async with self._turn(server_id):
            begun = time.monotonic()
            waited, pressed = timedelta(), -BUTTON_INTERVAL
            while await self.power_state(server_id) is PowerState.RUNNING and waited < timeout:
                if waited - pressed >= BUTTON_INTERVAL:
                    await self._blocking.run(self._domains.press_power_button, server_id)
                    pressed = waited
                report(f"asked the guest to shut down {waited.total_seconds():.0f} s ago")
                await asyncio.sleep(POLL_INTERVAL.total_seconds())
                waited = timedelta(seconds=time.monotonic() - begun)
            obeyed = await self._blocking.run(self._domains.is_off, server_id)
            await self._blocking.run(self._domains.power_off, server_id)
            self._power.told(server_id, PowerState.SHUTDOWN)
            return obeyed

    async def reset(self, server_id: str) -> None:
        """See `HypervisorDriver.reset`. A new QEMU each time, as Nova does: that also mends a guest that hangs.

        Also as Nova does, it has the processor that guests get here now.
        """
        virt_type = await self.virt_type()
        async with self._turn(server_id):
            await self._blocking.run(self._domains.power_off, server_id)
            await self._blocking.run(self._renew_processor, server_id, virt_type.type)
            await self._blocking.run(self._domains.power_on, server_id)
            self._power.told(server_id, PowerState.RUNNING)

    async def set_aside(self, server_id: str) -> None:
        """See `HypervisorDriver.set_aside`. A guest that is half made is none.

        Raises:
            NotFound: no such guest here.
            Conflict: one was set aside, and there is another guest in its place.
        """
        files = self._files(server_id)
        async with self._turn(server_id):
            await self._blocking.run(self._formers.set_aside, files)
            self._power.told(server_id, PowerState.NOSTATE)

    async def bring_back(self, server_id: str) -> None:
        """See `HypervisorDriver.bring_back`."""
        files = self._files(server_id)
        async with self._turn(server_id):
            await self._offers.withdraw(server_id)
            if await self._blocking.run(self._formers.bring_back, files):
                self._power.told(server_id, PowerState.SHUTDOWN)

    async def drop_former(self, server_id: str) -> None:
        """See `HypervisorDriver.drop_former`."""
        files = self._files(server_id)
        async with self._turn(server_id):
            await self._offers.withdraw(server_id)
            await self._blocking.run(self._formers.drop, files)

    async def has_former(self, server_id: str) -> bool:
        """See `HypervisorDriver.has_former`."""
        return await self._blocking.run(self._formers.can_return, self._files(server_id))

    async def formers(self) -> list[str]:
        """See `HypervisorDriver.formers`."""
        kept, offered = await self._blocking.run(lambda: (self._holdings.formers(), self._offers.servers()))
        return sorted({*kept, *offered})

    async def snapshot(self, server_id: str, target: Path, quiesce: bool, report: Report) -> DiskFormat:
        """See `HypervisorDriver.snapshot`. QEMU's user must get through the directory of `target`."""
        files = self._files(server_id)
        async with self._turn(server_id):
            return await self._snapshots.take(files, target, quiesce, report)

    async def restore(self) -> dict[str, str]:
        """See `HypervisorDriver.restore`. File systems are thawed that a snapshot left frozen."""
        reasons = {}
        for files in await self._blocking.run(self._freezing):
            try:
                reason = await self._snapshots.thaw(files)
            except (HostlerError, OSError) as error:
                reason = str(error)
            if reason:
                reasons[files.directory.name] = f"its file systems may be frozen: {reason}"
        return reasons

    async def check_leaving(self, server_id: str) -> None:
        """See `HypervisorDriver.check_leaving`."""
        await self._blocking.run(self._offers.refuse_closed, self._files(server_id))

    async def offer_disks(self, server_id: str, flatten: bool, report: Report) -> DisksOffer:
        """See `HypervisorDriver.offer_disks`.

        Raises:
            NotFound: no guest of the server was set aside.
        """
        files = self._files(server_id)
        async with self._turn(server_id):
            if not await self._blocking.run(self._formers.exists, files):
                raise NotFound("no guest of the server was set aside here", field="server_id", value=server_id)
            if flatten:
                await self._offers.flatten(files.former, server_id, report)
                await self._blocking.run(self._formers.stands_alone, files)
            offer = await self._offers.make(files.former, server_id, report)
            probe = None
            with suppress(OSError):  # then they are fetched
                probe = await self._blocking.run(self._shared.make_probe, files.former)
            return offer if probe is None else offer.model_copy(update={"host_id": self._host_id, "probe": probe})

    async def withdraw_offer(self, server_id: str) -> None:
        """See `HypervisorDriver.withdraw_offer`."""
        files = self._files(server_id)
        async with self._turn(server_id):
            await self._offers.withdraw(files.directory.name)

    async def receive_disks(self, offer: DisksOffer, report: Report) -> None:
        """See `HypervisorDriver.receive_disks`."""
        files = self._files(offer.server_id)
        async with self._turn(offer.server_id):
            await self._blocking.run(self._shared.make_home)
            await self._blocking.run(self._holdings.refuse_foreign, files.incoming)
            seen = await self._blocking.run(self._shared.offered, offer)
            await self._receiving.receive(files.incoming, offer, report, seen)

    async def describe(self, server_id: str) -> GuestDescription:
        """See `HypervisorDriver.describe`."""
        return await self._blocking.run(describe, self._domains, self._shared, self._files(server_id), self._host_id)

    async def prepare_incoming(
        self, guest: GuestSpec, description: GuestDescription, base: Path | None, report: Report, *, post_copy: bool
    ) -> Incoming:
        """See `HypervisorDriver.prepare_incoming`. What an earlier call made is made anew, for it may be written to."""
        files = self._files(guest.server_id)
        virt_type = await self.virt_type()
        async with self._turn(guest.server_id):
            await self._blocking.run(self._shared.make_home)
            report("checking whether the guest can run here")
            check = partial(self._arriving.check, post_copy=post_copy)
            await self._blocking.run(check, guest, description, virt_type.type, files)
            report("making the disks")
            return await self._blocking.run(self._arriving.prepare, guest, description, base, files)

    async def migrate(
        self, server_id: str, incoming: Incoming, limits: MigrationLimits, report: Report
    ) -> MigrationReport:
        """See `HypervisorDriver.migrate`."""
        async with self._turn(server_id):
            done = await self._leaving.migrate(server_id, incoming, limits, report)
            self._power.told(server_id, PowerState.SHUTDOWN)
            return done

    async def end_migration(self, server_id: str) -> Whereabouts:
        """See `HypervisorDriver.end_migration`. Also while `migrate` is at work here, which ends by it.

        Raises:
            Unavailable: it does not end.
        """
        end = time.monotonic() + END_LIMIT.total_seconds()
        while self._is_busy(server_id):
            if time.monotonic() > end:
                raise Unavailable(f"something has been at work on the guest for {END_LIMIT}", remedy="try again")
            with suppress(Unavailable):  # libvirt is busy with the very migration
                await self._leaving.abort(server_id)
            await asyncio.sleep(POLL_INTERVAL.total_seconds())
        async with self._turn(server_id):
            found = await self._leaving.end(server_id)
            if found is Whereabouts.HERE:
                self._power.told(server_id, PowerState.RUNNING)
            return found

    async def take_over(self, server_id: str, *, anew: bool = False) -> None:
        """See `HypervisorDriver.take_over`. One that has come and is off, for this host was, stays off."""
        async with self._turn(server_id):
            await self._blocking.run(self._arriving.take_over, server_id, anew)
            self._power.told(server_id, PowerState.RUNNING)

    async def arrival(self, server_id: str, *, refuse: bool = False) -> Arrival:
        """See `HypervisorDriver.arrival`."""
        async with self._turn(server_id):
            if refuse:
                await self._blocking.run(self._arriving.refuse, self._files(server_id))
            return await self._blocking.run(self._arriving.arrival, server_id)

    async def keep(self, server_id: str) -> None:
        """See `HypervisorDriver.keep`. What post-copy left here when it broke off can never run on: it is powered off.

        That is news, since whoever keeps a guest may take it for one that runs.
        """
        async with self._turn(server_id):
            with suppress(NotFound):
                domain = await self._blocking.run(self._domains.get, server_id)
                if await self._blocking.run(migration_job.post_copy_failed, domain):
                    await self._blocking.run(self._domains.power_off, server_id)
            await self._blocking.run(self._domains.keep, server_id)

    async def force_complete(self, server_id: str) -> None:
        """See `HypervisorDriver.force_complete`."""
        await self._leaving.force(server_id)

    async def power_state(self, server_id: str) -> PowerState:
        """See `HypervisorDriver.power_state`."""
        return await self._blocking.run(self._domains.power_state, server_id)

    async def console_log(self, server_id: str, max_bytes: int) -> str:
        """See `HypervisorDriver.console_log`.

        Raises:
            NotFound: no such guest here.
        """
        return await self._blocking.run(read_end, self._files(server_id).console_log, max_bytes)

    async def guests(self) -> list[str]:
        """See `HypervisorDriver.guests`. One that has a domain or files, be it half made or half removed, counts."""
        return [guest.server_id for guest in await self.held() if guest.host_id in (None, self._host_id)]

    async def held(self) -> list[HeldGuest]:
        """See `HypervisorDriver.held`. NOSTATE is one that has files and no domain."""
        return await self._blocking.run(self._holdings.held)

    async def strays(self) -> list[str]:
        """See `HypervisorDriver.strays`."""
        return await self._blocking.run(self._holdings.strays)

    async def power_changes(self) -> AsyncGenerator[frozenset[str]]:
        """See `HypervisorDriver.power_changes`."""
        events = watch(self._settings.uri, self._blocking, self._power.look_at, self._power.look_at_all)
        watching = asyncio.create_task(events, name="libvirt events")
        try:
            async for changed in self._power.follow(self.guests, self.power_state, self._is_busy):
                yield changed
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def close(self) -> None:
        """See `HypervisorDriver.close`."""
        self._power.close()
        await self._leaving.close()
        await self._blocking.close()
        self._connection.close()

    def _files(self, server_id: str) -> GuestFiles:
        return GuestFiles.of(self._guests_dir, server_id, self._shared.home)

    @asynccontextmanager
    async def _turn(self, server_id: str) -> AsyncIterator[None]:
        """Alone with one guest: an attempt that Temporal gave up on may still be at work when the next one begins."""
        try:
            async with self._turns.setdefault(server_id, asyncio.Lock()):
                yield
        finally:
            self._power.look_again()

    def _is_busy(self, server_id: str) -> bool:
        turn = self._turns.get(server_id)
        return turn is not None and turn.locked()

    def _freezing(self) -> list[GuestFiles]:
        """The guests whose file systems a snapshot freezes, or has left frozen."""
        own = [self._files(path.name) for path in sorted(self._guests_dir.glob("*")) if is_uuid(path.name)]
        return [files for files in own if files.freezing.exists() and self._holdings.is_ours(files)]

    def _renew_processor(self, server_id: str, virt_type: str) -> None:
        xml = with_processor(self._domains.definition(server_id), virt_type, self._settings.cpu_model)
        if xml is not None:
            self._domains.define(xml)

    def _probe(self) -> VirtType:
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return probe_virt_type(self._settings, self._state_dir)

    def _take_inventory(self) -> Inventory:
        with libvirt_errors(Unavailable):
            hypervisor_type = self._connection.get().getType()  # "QEMU", under KVM too, as Nova reports it
        # Memory and processors from the kernel: libvirt's count misses memory that was added while the machine ran.
        return Inventory(
            vcpus=psutil.cpu_count() or 1,
            ram_mib=psutil.virtual_memory().total // MIB,
            disk_gib=shutil.disk_usage(self._shared.home or self._state_dir).total // GIB,
            architecture=platform.machine(),
            hypervisor_type=hypervisor_type,
        )
