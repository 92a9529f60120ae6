"""Describes a guest that runs, so that another host can take it in. All calls block."""

import libvirt

from drivers.hypervisor.libvirt.carried_drive import pack
from drivers.hypervisor.libvirt.connection import libvirt_errors
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.files import GuestFiles, movable_disk
from drivers.hypervisor.libvirt.migration_xml import local_disks, obstacles, virt_type_of
from drivers.hypervisor.libvirt.shared import SharedDisks
from hostler.contract.errors import InvalidState, NotFound, Unavailable
from hostler.contract.guests import DescribedDisk, GuestDescription

OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_SHUTDOWN)


def describe(domains: Domains, shared: SharedDisks, files: GuestFiles, host_id: str) -> GuestDescription:
    """See `HypervisorDriver.describe`.

    Raises:
        NotFound: no such guest here.
        InvalidState: it is off or paused, or has something that cannot move while it runs.
    """
    server_id = files.directory.name
    domain = domains.get(server_id)
    with libvirt_errors(NotFound):
        _refuse_unless_it_runs(domain)
        live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
    if found := obstacles(live, files):
        raise InvalidState(
            f"the guest cannot move while it runs, it has {', '.join(found)}",
            field="server_id",
            value=server_id,
            remedy="detach that, or migrate it powered off",
        )
    if files.freezing.exists():
        raise InvalidState(
            "a snapshot has frozen the guest's file systems, and they could not be thawed yet",
            field="server_id",
            value=server_id,
            remedy="it is tried again every few seconds; if its agent is gone for good: hostler server reboot --hard",
        )
    with libvirt_errors(Unavailable):
        disks = [
            DescribedDisk(
                target=disk.target,
                file=disk.file,
                size_bytes=domain.blockInfo(disk.target)[0],
                disk_format=disk.disk_format,
                shared=files.is_shared and movable_disk(disk.file),
            )
            for disk in local_disks(live)
        ]
        return GuestDescription(
            server_id=server_id,
            live=live,
            persistent=domains.definition(server_id),
            disks=disks,
            virt_type=virt_type_of(live),
            hypervisor_version=domain.connect().getVersion(),
            host_id=host_id,
            probe=shared.make_probe(files),
            config_drive=pack(files.config_drive),
        )


def _refuse_unless_it_runs(domain: libvirt.virDomain) -> None:
    state, _reason = domain.state()
    if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
        return
    off, server_id = state in OFF, domain.UUIDString()
    anew = f"start it anew: hostler server reboot --hard {server_id}"  # a start is only for one that is SHUTOFF
    raise InvalidState(
        f"the guest is {'off' if off else 'paused'}: only one that runs can move while it runs",
        field="server_id",
        value=server_id,
        remedy="migrate it as it is: hostler server migrate" if off else anew,
    )
