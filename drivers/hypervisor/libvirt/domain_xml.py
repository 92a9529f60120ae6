"""The libvirt domain of a guest: a pure function of what the guest is and of where its files are.

Source of the format: libvirt's "Domain XML format".
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from lxml import etree
from lxml.builder import E, ElementMaker

from drivers.hypervisor.libvirt.disks import disk_format
from drivers.hypervisor.libvirt.files import GuestFiles, target
from drivers.hypervisor.libvirt.tcg_memory import tcg_memory
from hostler.contract.guests import GuestDisk, GuestSpec, PortBinding, VolumeConnection
from hostler.contract.names import bridge_name, tap_name

NAMESPACE = "urn:hostler:guest:1"
HOSTLER = ElementMaker(namespace=NAMESPACE, nsmap={"hostler": NAMESPACE})

# i440fx boots the oldest guests, has IDE for the config drive, and hot-plugs PCI devices without ports set aside.
MACHINE = "pc"
# The x86-64-v2 that today's distributions ask for, and the same wherever the guest may migrate, unless told otherwise.
TCG_CPU = "Nehalem"
# QEMU sets aside 1 GiB for translated code unless told; a small guest needs little of it.
TCG_CACHE_MIB = 32
# What a mark has for its spec when the guest was handed over to another host.
GONE = "gone"
# And when it was, and is this host's again all the same.
KEPT = "kept"
RNG_SOURCE = "/dev/urandom"
BALLOON_STATISTICS_SECONDS = 10


class Mark(NamedTuple):
    """What makes a domain ours, kept in its metadata: where its files are, the hash of what it was made from, and the
    UUID of the host that made it (empty: that was not yet recorded).
    """

    directory: str
    spec: str
    host: str

    @classmethod
    def of(cls, guest: GuestSpec, files: GuestFiles, host_id: str) -> "Mark":
        """The mark of a guest that is to be made."""
        spec = hashlib.sha256(guest.model_dump_json().encode()).hexdigest()
        return cls(str(files.directory), spec, host_id)

    @classmethod
    def read(cls, metadata: str) -> "Mark":
        """The mark in a domain's metadata element of our namespace."""
        element = etree.fromstring(metadata)
        return cls(element.get("directory", ""), element.get("spec", ""), element.get("host", ""))


def domain_name(server_id: str) -> str:
    """The domain's name, by which an operator finds the server of a domain, of a process and of a log."""
    return f"hostler-{server_id}"


def domain_xml(
    guest: GuestSpec,
    mark: Mark,
    files: GuestFiles,
    base: Path | None,
    virt_type: Literal["kvm", "qemu"],
    direct_io: bool,
    cpu_model: str | None = None,
) -> str:
    """The domain; `direct_io` says whether the file system of the guests' files can bypass the page cache.

    `cpu_model` as in `cpu`.
    """
    domain = E.domain(
        E.name(domain_name(guest.server_id)),
        E.uuid(guest.server_id),
        E.metadata(_metadata(guest, mark)),
        E.memory(str(guest.ram_mib), unit="MiB"),
        E.vcpu(str(guest.vcpus)),
        E.os(E.type("hvm", machine=MACHINE)),
        _features(virt_type),
        cpu(virt_type, cpu_model),
        # As Nova: what keeps a guest's clock right when its virtual CPU did not run for a while.
        E.clock(
            E.timer(name="pit", tickpolicy="delay"),
            E.timer(name="rtc", tickpolicy="catchup"),
            E.timer(name="hpet", present="no"),
            offset="utc",
        ),
        E.on_poweroff("destroy"),
        E.on_reboot("restart"),
        E.on_crash("destroy"),
        E.devices(
            *_disks(guest, files, base, direct_io),
            *(_interface(port) for port in guest.ports),
            *_fixed_devices(files),
        ),
        type=virt_type,
    )
    if virt_type == "qemu":
        domain.append(tcg_memory(guest.ram_mib))
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def without_backing_file(xml: str, disk: Path) -> str:
    """The domain after the disk in this file has taken in what it had of its image."""
    domain = etree.fromstring(xml)
    for backing in domain.xpath("devices/disk[source/@file = $file]/backingStore", file=str(disk)):
        parent = backing.getparent()
        parent.replace(backing, E.backingStore())
    return etree.tostring(domain, encoding="unicode")


def with_processor(xml: str, virt_type: str, model: str | None) -> str | None:
    """The domain with the processor of `cpu`; None where it has that, or is of another type."""
    domain = etree.fromstring(xml)
    has, gets = domain.find("cpu"), cpu(virt_type, model)
    if domain.get("type") != virt_type or has is None or _wish(has) == _wish(gets):
        return None
    domain.replace(has, gets)
    return etree.tostring(domain, encoding="unicode")


def cpu(virt_type: str, model: str | None = None) -> etree._Element:
    """The processor that guests get: the `model` of this name, with nothing beside, if there is one."""
    if virt_type == "kvm" and model is None:
        return E.cpu(mode="host-model")  # all the host has that libvirt can find again on another
    return E.cpu(E.model(model or TCG_CPU, fallback="forbid"), mode="custom", match="exact")


def _wish(processor: etree._Element) -> tuple[str | None, str | None]:
    """What of it is asked for, and not libvirt's addition."""
    return processor.get("mode"), processor.findtext("model") or None


def _metadata(guest: GuestSpec, mark: Mark) -> etree._Element:
    return HOSTLER.guest(
        HOSTLER.name(guest.name),
        HOSTLER.project(guest.project),
        HOSTLER.flavor(guest.flavor),
        **mark._asdict(),
    )


def _features(virt_type: str) -> etree._Element:
    features = E.features(E.acpi(), E.apic())
    if virt_type == "qemu":
        features.append(E.tcg(E("tb-cache", str(TCG_CACHE_MIB), unit="MiB")))
    return features


def _disks(guest: GuestSpec, files: GuestFiles, base: Path | None, direct_io: bool) -> Iterable[etree._Element]:
    order = 0
    paths = files.disks(guest)
    for disk in guest.disks:
        if disk.connection is not None:
            element = _volume(disk, disk.connection)
        else:
            element = _local_disk(disk, files, paths[disk.device], base, direct_io)
        element.append(E.target(dev=target(disk), bus="virtio"))
        if disk.bootable:
            order += 1
            element.append(E.boot(order=str(order)))
        yield element
    if guest.config_drive:
        yield E.disk(
            E.driver(name="qemu", type="raw"),
            E.source(file=str(files.config_drive)),
            E.target(dev="hda", bus="ide"),
            E.readonly(),
            type="file",
            device="cdrom",
        )


def _local_disk(disk: GuestDisk, files: GuestFiles, path: Path, base: Path | None, direct_io: bool) -> etree._Element:
    image_format = disk_format(disk)
    element = E.disk(
        E.driver(name="qemu", type=image_format, cache=cache_mode(direct_io), discard="unmap"),
        source_of(files, path),
        type="file",
        device="disk",
    )
    if disk.image is not None:
        # Spelled out, since libvirt would otherwise give the shared image to QEMU's user, who could then write it.
        element.append(
            E.backingStore(
                E.format(type=disk.image.disk_format),
                E.source(not_relabelled(), file=str(base)),
                E.backingStore(),
                type="file",
            )
        )
    return element


def source_of(files: GuestFiles, path: Path) -> etree._Element:
    """The <source> of a disk that is this file.

    On shared storage it is QEMU's from the beginning: libvirt would take it away when the guest is off here, also when
    that is because it runs elsewhere. It spares only the file systems that it knows to be shared.
    """
    return E.source(*([not_relabelled()] if path.parent == files.shared else []), file=str(path))


def not_relabelled() -> etree._Element:
    """Has libvirt leave a file's owner alone."""
    return E.seclabel(model="dac", relabel="no")


def _volume(disk: GuestDisk, connection: VolumeConnection) -> etree._Element:
    return E.disk(
        E.driver(name="qemu", type=connection.disk_format, cache="none", discard="unmap"),
        E.source(E.host(name=connection.host, port=str(connection.port)), protocol="nbd", name=connection.export),
        # As Nova: a guest finds its volume as /dev/disk/by-id/virtio-<the first 20 characters>.
        E.serial(connection.volume_id),
        type="network",
        device="disk",
    )


def cache_mode(direct_io: bool) -> str:
    """As Nova: the guest has a page cache of its own, so the host's would keep everything in memory twice.

    Both obey the guest's flushes. `discard`: what a guest trims, its sparse file gives back to the host.
    """
    return "none" if direct_io else "writeback"


def _interface(port: PortBinding) -> etree._Element:
    return E.interface(
        E.mac(address=port.mac),
        E.source(bridge=bridge_name(port.network_id)),
        E.target(dev=tap_name(port.port_id)),
        E.model(type="virtio"),
        E.mtu(size=str(port.mtu)),
        E.rom(enabled="no"),  # nobody boots from the network: saves memory and the firmware's time
        type="bridge",
    )


def _fixed_devices(files: GuestFiles) -> list[etree._Element]:
    return [
        E.controller(type="usb", model="none"),
        E.serial(E.log(file=str(files.console_log), append="on"), E.target(port="0"), type="pty"),
        E.channel(E.target(type="virtio", name="org.qemu.guest_agent.0"), type="unix"),
        E.video(E.model(type="none")),
        E.memballoon(E.stats(period=str(BALLOON_STATISTICS_SECONDS)), model="virtio"),
        E.rng(E.backend(RNG_SOURCE, model="random"), model="virtio"),
    ]
