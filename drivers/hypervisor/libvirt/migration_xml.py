"""The domain of a guest that moves while it runs: what stands in its way, and how it is to be on its next host.

Pure functions. The guest must not notice: only what lies outside of it, the paths of its files above all, may change.
"""

from pathlib import Path
from typing import NamedTuple

from lxml import etree
from lxml.builder import E

from drivers.hypervisor.libvirt.domain_xml import NAMESPACE, Mark, cache_mode, source_of
from drivers.hypervisor.libvirt.files import GuestFiles, is_disk
from hostler.contract.errors import RescheduleError
from hostler.contract.resources import DiskFormat

BOUND = ("hostdev", "filesystem", "shmem", "tpm", "redirdev", "nvram")
"""Devices that live on their host."""


class LocalDisk(NamedTuple):
    """A disk that is a file of the guest's and that it can write. `backing`: the format of the image beneath.

    `cache`: how much of it its host keeps in memory.
    """

    target: str
    file: str
    disk_format: DiskFormat
    backing: DiskFormat | None
    cache: str = ""


def local_disks(xml: str) -> list[LocalDisk]:
    """The disks of a domain that have to be copied."""
    return [_local_disk(disk) for disk in _writable_files(etree.fromstring(xml))]


def processor(xml: str) -> str:
    """The domain's <cpu>."""
    found = etree.fromstring(xml).find("cpu")
    return "" if found is None else etree.tostring(found, encoding="unicode", with_tail=False)


def virt_type_of(xml: str) -> str:
    """kvm, or qemu."""
    return str(etree.fromstring(xml).get("type", ""))


def machine(xml: str) -> tuple[str, str]:
    """The architecture and the machine type."""
    os_type = etree.fromstring(xml).find("os/type")
    return ("", "") if os_type is None else (os_type.get("arch", ""), os_type.get("machine", ""))


def obstacles(xml: str, files: GuestFiles) -> list[str]:
    """What keeps a guest from moving while it runs."""
    devices = etree.fromstring(xml).find("devices")
    if devices is None:
        return []
    found = [f"a {name} device" for name in BOUND if devices.find(name) is not None]
    for disk in devices.findall("disk"):
        name = _target(disk)
        source = disk.find("source")
        if source is None:
            continue
        kind, file = disk.get("type"), Path(source.get("file", ""))
        if kind not in ("file", "network"):
            found.append(f"disk {name}, which is a {kind} of its host")
        elif kind == "file" and (not is_disk(file.name) or file != files.disk(file.name)):
            found.append(f"disk {name}, whose file {file} is not the guest's own")
    kinds = {interface.get("type") for interface in devices.findall("interface")} - {"bridge"}
    return found + [f"a network interface of type {kind}" for kind in sorted(map(str, kinds))]


def rewritten(xml: str, files: GuestFiles, mark: Mark, base: Path | None, direct_io: bool) -> str:
    """The domain with its files in `files`, its root disk over the image file `base`, and marked as that host's.

    Without `base`, disks stand alone. `direct_io` as in `domain_xml`.

    Raises:
        RescheduleError: it is not a domain that Hostler made.
    """
    domain = etree.fromstring(xml)
    element = domain.find(f"metadata/{{{NAMESPACE}}}guest")
    if element is None:
        raise RescheduleError("the guest's domain is not marked as Hostler's", remedy="look at it: virsh dumpxml")
    former = Path(element.get("directory", ""))
    for name, value in mark._asdict().items():
        element.set(name, value)
    for disk in _writable_files(domain):
        driver, source = disk.find("driver"), disk.find("source")
        if driver is not None:
            driver.set("cache", cache_mode(direct_io))
        if source is not None:
            disk.replace(source, source_of(files, files.disk(Path(source.get("file", "")).name)))
        _set_upon(disk, base)
    for place in domain.xpath("devices/disk/source[@file] | devices/*/log[@file]"):
        path = Path(place.get("file"))
        if path.parent == former:
            place.set("file", str(files.disk(path.name)))
    return etree.tostring(domain, encoding="unicode")


def _set_upon(disk: etree._Element, base: Path | None) -> None:
    """Another path of the image beneath; its seclabel stays, so that libvirt leaves the shared file alone."""
    backing = disk.find("backingStore")
    source = None if backing is None else backing.find("source")
    if backing is None or source is None:
        return
    if base is None:
        disk.replace(backing, E.backingStore())
    else:
        source.set("file", str(base))


def _writable_files(domain: etree._Element) -> list[etree._Element]:
    disks = domain.xpath("devices/disk[@type='file' and not(readonly)][source/@file]")
    return [disk for disk in disks if disk.get("device", "disk") == "disk"]


def _local_disk(disk: etree._Element) -> LocalDisk:
    driver, source = disk.find("driver"), disk.find("source")
    if driver is None or source is None:
        raise RescheduleError(f"disk {_target(disk)} has no driver or no source", remedy="look at it: virsh dumpxml")
    backing = disk.find("backingStore[source]/format")
    beneath = None if backing is None else DiskFormat(backing.get("type", ""))
    file = Path(source.get("file", "")).name
    return LocalDisk(_target(disk), file, DiskFormat(driver.get("type", "")), beneath, driver.get("cache", ""))


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")
