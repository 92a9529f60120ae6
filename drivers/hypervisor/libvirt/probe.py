"""Finds out whether guests really run under KVM here.

Neither /dev/kvm nor libvirt's word is enough: in some nested machines a virtual machine can be created and yet no guest
gets through its first instructions. So a tiny guest is started, with the processor that real ones get unless the
settings name another: one that cannot be had is refused, and is no reason to do without KVM.
"""

import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

import libvirt
from lxml import etree
from lxml.builder import E

from drivers.hypervisor.libvirt.boot_sector import GREETING, boot_disk
from drivers.hypervisor.libvirt.connection import Connection, ignoring, one_line
from drivers.hypervisor.libvirt.domain_xml import cpu
from hostler.contract.errors import Unavailable
from hostler.settings import LibvirtSettings

PATIENCE = timedelta(seconds=15)  # a guest takes half a second; a machine that boots many others takes longer
KVM = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CACHE = "virt-type.json"

RAM_MIB = 16


class VirtType(NamedTuple):
    """What kind of domain to make: "kvm", or "qemu" (TCG, which translates instructions: many times slower)."""

    type: Literal["kvm", "qemu"]
    reason: str


def probe_virt_type(settings: LibvirtSettings, state_dir: Path) -> VirtType:
    """What the settings say; for "auto", KVM if a guest runs under it. The answer holds until the machine reboots.

    Blocks for seconds the first time. QEMU must be able to reach `state_dir`.

    Raises:
        Unavailable: libvirt does not answer, or no guest starts at all.
    """
    if settings.virt_type != "auto":
        return VirtType(settings.virt_type, "the settings say so")
    if not KVM.exists():
        return VirtType("qemu", f"there is no {KVM}: virtualisation is off, or not passed on to this machine")
    connection = Connection(settings.uri)
    try:
        cache = state_dir / CACHE
        key = _key(connection.get())
        known = _recall(cache, key)
        if known is None:
            known = _try_out(connection.get(), state_dir)
            cache.write_text(json.dumps({"key": key, **known._asdict()}))
        return known
    finally:
        connection.close()


def _try_out(connection: libvirt.virConnect, state_dir: Path) -> VirtType:
    trouble = guest_trouble(connection, "kvm", state_dir)
    if trouble is None:
        return VirtType("kvm", "a guest ran under KVM")
    # Was it KVM's fault? Only a guest that runs without it says so.
    other_trouble = guest_trouble(connection, "qemu", state_dir)
    if other_trouble is not None:
        raise Unavailable(f"no guest starts on this host: {other_trouble}")
    return VirtType("qemu", f"{KVM} is there, but no guest runs under it: {trouble}")


def guest_trouble(connection: libvirt.virConnect, virt_type: str, state_dir: Path) -> str | None:
    """None if a guest of this type ran, else what was wrong. The guest and its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=state_dir) as name:
        directory = Path(name)
        directory.chmod(0o711)  # QEMU is another user
        disk, log = directory / "disk", directory / "console.log"
        disk.write_bytes(boot_disk())
        log.touch()
        try:
            domain = connection.createXML(_xml(virt_type, disk, log), libvirt.VIR_DOMAIN_START_AUTODESTROY)
        except libvirt.libvirtError as error:
            return one_line(error)
        try:
            return _wait_for_greeting(domain, log)
        finally:
            with ignoring(libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                domain.destroy()


def _wait_for_greeting(domain: libvirt.virDomain, log: Path) -> str | None:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < deadline:
        running = _runs(domain)
        if GREETING.strip() in log.read_bytes():
            return None
        if not running:
            return "its virtual processor stopped with an error"
        time.sleep(0.02)
    return f"it gave no sign of life within {PATIENCE.total_seconds():.0f} s"


def _runs(domain: libvirt.virDomain) -> bool:
    try:
        state, _reason = domain.state()
    except libvirt.libvirtError:
        return False
    return bool(state == libvirt.VIR_DOMAIN_RUNNING)


def _xml(virt_type: str, disk: Path, log: Path) -> str:
    domain = E.domain(
        E.name(f"hostler-probe-{uuid4().hex[:8]}"),
        E.memory(str(RAM_MIB), unit="MiB"),
        E.os(E.type("hvm", machine="pc")),
        E.features(E.acpi()),
        cpu(virt_type),
        E.devices(
            E.disk(E.driver(name="qemu", type="raw"), E.source(file=str(disk)), E.target(dev="vda", bus="virtio")),
            E.controller(type="usb", model="none"),
            E.serial(E.log(file=str(log)), type="pty"),
            E.memballoon(model="none"),
        ),
        type=virt_type,
    )
    return etree.tostring(domain, encoding="unicode")


def _key(connection: libvirt.virConnect) -> str:
    """What the answer depends on: this boot, QEMU's version, and who may use KVM."""
    access = KVM.stat()
    parts = BOOT_ID.read_text().strip(), connection.getVersion(), oct(access.st_mode), access.st_uid, access.st_gid
    return " ".join(str(part) for part in parts)


def _recall(cache: Path, key: str) -> VirtType | None:
    try:
        known = json.loads(cache.read_text())
        return VirtType(known["type"], known["reason"]) if known["key"] == key else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
