"""Takes in a guest that another host sends while it runs. All calls block.

Before, its directory is made, with the record of whose it is: from then on `destroy` removes all that is of it. Disks
that hosts share get names of this host's, which is all of them that `destroy` removes; nothing is copied. The
domain comes with the guest, paused, and stays when all of it has come; only then is there a definition of it.
"""

import shutil
import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import libvirt

from drivers.hypervisor.libvirt import migration_job
from drivers.hypervisor.libvirt.carried_drive import unpack
from drivers.hypervisor.libvirt.config_drive import write_config_drive
from drivers.hypervisor.libvirt.connection import Connection, ignoring, libvirt_errors, one_line
from drivers.hypervisor.libvirt.disks import make_empty
from drivers.hypervisor.libvirt.domain_xml import Mark
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.files import GuestFiles, is_disk
from drivers.hypervisor.libvirt.holdings import Holdings
from drivers.hypervisor.libvirt.migration_xml import local_disks, machine, processor, rewritten
from drivers.hypervisor.libvirt.peers import CONNECT_SECONDS, connect, migration_uri, refuse_loopback
from drivers.hypervisor.libvirt.qemu_user import refuse_no_post_copy
from drivers.hypervisor.libvirt.shared import SharedDisks, direct_io
from drivers.hypervisor.libvirt.spawning import make_directory
from hostler.contract.errors import NotFound, RescheduleError, Unavailable
from hostler.contract.guests import Arrival, GuestDescription, GuestSpec, Incoming
from hostler.contract.states import PowerState
from hostler.settings import HostSettings

ARRIVAL_LIMIT = timedelta(seconds=20)
POLL_INTERVAL = timedelta(seconds=0.2)


class Arriving:
    """The guests that come to one host."""

    def __init__(
        self,
        connection: Connection,
        domains: Domains,
        holdings: Holdings,
        shared: SharedDisks,
        host: HostSettings,
        host_id: str,
    ) -> None:
        self._connection = connection
        self._domains = domains
        self._holdings = holdings
        self._shared = shared
        self._host = host
        self._host_id = host_id

    def check(
        self, guest: GuestSpec, description: GuestDescription, virt_type: str, files: GuestFiles, *, post_copy: bool
    ) -> None:
        """Make sure that the guest can run here, and can come; with `post_copy`, in that way.

        Raises:
            RescheduleError: it cannot.
        """
        self._refuse_guest_in_place(files)
        if virt_type != description.virt_type:
            raise RescheduleError(
                f"the guest runs under {description.virt_type}, and guests of this host under {virt_type}",
                remedy="migrate it powered off, or to a host of the same kind",
            )
        with libvirt_errors(Unavailable):
            version = self._connection.get().getVersion()
        if version < description.hypervisor_version:
            raise RescheduleError(
                f"this host's QEMU is {_dotted(version)}, and the guest's {_dotted(description.hypervisor_version)}: "
                "a guest does not run under an older one",
                remedy="upgrade QEMU on this host, or migrate the guest powered off",
            )
        self._compare_processor(description)
        self._check_room(description, files)
        self._check_way()
        _check_volumes(guest)
        if post_copy:
            refuse_no_post_copy(self._connection)

    def prepare(
        self, guest: GuestSpec, description: GuestDescription, base: Path | None, files: GuestFiles
    ) -> Incoming:
        """Make the files anew, empty but for disks that are shared; what an earlier call made may have been written to.

        Raises:
            RescheduleError: this host cannot make them, or does not see those that are shared.
        """
        self._holdings.refuse_foreign(files)
        seen = self._shared.seen(description, base)
        self._holdings.remove(files)
        make_directory(files, self._host_id)
        self._shared.link(seen, files)
        disks = local_disks(description.live)
        copied = [disk for disk in description.disks if disk.file not in seen]
        backing = {disk.file: disk.backing for disk in disks if disk.file not in seen}
        for disk in copied:
            if not is_disk(disk.file) or disk.file not in backing:
                raise RescheduleError(f"{disk.file!r} is no name of a guest's disk", field="disks", value=disk.file)
            image_format = backing[disk.file]
            beneath = None if base is None or image_format is None else (base, image_format)
            make_empty(files.disk(disk.file), disk.disk_format, disk.size_bytes, beneath)
        self._shared.give_to_qemu(files)
        if description.config_drive is not None:
            unpack(description.config_drive, files.config_drive)
        elif guest.config_drive:
            write_config_drive(guest, files.config_drive)
        mark = Mark.of(guest, files, self._host_id)
        uncached = direct_io(files)
        return Incoming(
            server_id=guest.server_id,
            uri=migration_uri(self._host.migration_address),
            address=self._host.migration_address,
            live=rewritten(description.live, files, mark, base, uncached),
            persistent=rewritten(description.persistent, files, mark, base, uncached),
            disks=[disk.target for disk in copied],
            whole=base is None and any(backing.values()),
            shared=bool(seen),
        )

    def take_over(self, server_id: str, anew: bool) -> None:
        """See `HypervisorDriver.take_over`. One that has come and is off since, as this host was, stays off.

        Raises:
            NotFound: it has not come, or not as a whole.
        """
        end = time.monotonic() + ARRIVAL_LIMIT.total_seconds()
        while (missing := self._not_over(server_id)) and time.monotonic() < end:
            time.sleep(POLL_INTERVAL.total_seconds())
        if missing:
            raise NotFound(
                f"the guest has not come: {missing}",
                field="server_id",
                value=server_id,
                remedy="see the logs of libvirt and QEMU on both hosts",
            )
        if anew and self._domains.power_state(server_id) is PowerState.PAUSED:
            self._domains.power_off(server_id)
        if anew or not self._domains.is_off(server_id):
            self._domains.power_on(server_id)

    def refuse(self, files: GuestFiles) -> None:
        """End what is on its way here, and goes on then where it comes from; what was made ready for it goes, too.

        A guest that has come stays as it is.
        """
        server_id = files.directory.name
        with suppress(NotFound):  # its migration ended
            domain = self._domains.get(server_id)
            with libvirt_errors(Unavailable):
                begun = not domain.isPersistent() and not migration_job.post_copy_failed(domain)
            if begun and self._domains.power_state(server_id) is PowerState.PAUSED:
                self._domains.power_off(server_id)
        if self._domains.power_state(server_id) is PowerState.NOSTATE:
            self._holdings.remove(files)

    def arrival(self, server_id: str) -> Arrival:
        """See `HypervisorDriver.arrival`.

        Raises:
            Unavailable: libvirt is about to say.
        """
        match self._domains.power_state(server_id):
            case PowerState.RUNNING:
                return Arrival.RUNS
            case PowerState.NOSTATE:
                return Arrival.NOTHING
        try:
            if self._missing(server_id):
                return Arrival.NOTHING
            if self._ends(server_id):
                raise Unavailable("the migration of the guest to this host is ending at this moment")
            return Arrival.OFF if self._domains.is_off(server_id) else Arrival.COME
        except NotFound:  # its migration ended between two looks
            return Arrival.NOTHING

    def _missing(self, server_id: str) -> str:
        """What of the guest is not here yet; empty when all is."""
        domain = self._domains.get(server_id)
        if migration_job.post_copy_failed(domain):
            return "the network broke off when some of its memory was still on its former host"
        if self._domains.is_handed_over(server_id):
            return "it has left this host itself"
        with libvirt_errors(Unavailable):  # it defines it when it has all of it
            return "" if domain.isPersistent() else "libvirt here does not have all of it"

    def _not_over(self, server_id: str) -> str:
        return self._missing(server_id) or ("it is still on its way" if self._ends(server_id) else "")

    def _ends(self, server_id: str) -> bool:
        """Whether libvirt has all of it and its migration has not ended: of one that comes it gives no statistics."""
        domain = self._domains.get(server_id)
        job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
        with libvirt_errors(Unavailable), ignoring(libvirt.VIR_ERR_OPERATION_UNSUPPORTED):
            job = domain.jobInfo()[0] if domain.isActive() else libvirt.VIR_DOMAIN_JOB_NONE
        return bool(job != libvirt.VIR_DOMAIN_JOB_NONE)

    def _refuse_guest_in_place(self, files: GuestFiles) -> None:
        server_id = files.directory.name
        self._holdings.refuse_foreign(files)
        self._domains.mark(server_id)  # refuses a domain that is not ours
        state = self._domains.power_state(server_id)
        if state in (PowerState.RUNNING, PowerState.PAUSED):
            raise RescheduleError(
                f"a guest of server {server_id} is on this host already, {state}",
                remedy="find out which one is right; what is left of an earlier migration is removed with its undo",
            )

    def _compare_processor(self, description: GuestDescription) -> None:
        arch, machine_type = machine(description.live)
        cpu = processor(description.live)
        if not cpu:
            return
        try:
            with libvirt_errors(Unavailable):
                connection = self._connection.get()
            flags = libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
            connection.compareHypervisorCPU(None, arch, machine_type, description.virt_type, cpu, flags)
        except libvirt.libvirtError as error:
            raise RescheduleError(
                f"the guest's processor is not to be had here: {one_line(error)}",
                remedy="migrate it powered off, or to a host with a processor that has all of this",
            ) from error

    def _check_room(self, description: GuestDescription, files: GuestFiles) -> None:
        directory = (files.shared or files.directory).parent
        directory.mkdir(parents=True, exist_ok=True)
        copied = sum(disk.size_bytes for disk in description.disks if not disk.shared)
        needed = int(copied / max(self._host.disk_ratio, 1.0))
        free = shutil.disk_usage(directory).free
        if free < needed:
            raise RescheduleError(
                f"no room for the guest's disks: they need up to {needed} bytes, and {free} are free in {directory}",
                remedy="free space on the host",
            )

    def _check_way(self) -> None:
        address = self._host.migration_address
        refuse_loopback(address, f"no guest can come from another host to {address}")
        connect(migration_uri(address), RescheduleError).close()


def _check_volumes(guest: GuestSpec) -> None:
    """The guest would find out only when all of it has been sent."""
    for reached in [disk.connection for disk in guest.disks if disk.connection is not None]:
        try:
            socket.create_connection((reached.host, reached.port), CONNECT_SECONDS).close()
        except OSError as error:
            raise RescheduleError(
                f"this host does not reach volume {reached.volume_id} at {reached.host}:{reached.port}: {error}",
                field="volume",
                value=reached.volume_id,
                remedy="see that the volume's host is up and that no firewall is between it and this host",
            ) from error


def _dotted(version: int) -> str:
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"
