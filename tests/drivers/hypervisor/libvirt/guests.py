"""Guests for tests of the libvirt driver."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest

from drivers.hypervisor.base import HypervisorDriver
from drivers.hypervisor.libvirt.boot_sector import GREETING
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, ImageRef, PortBinding
from hostler.contract.resources import DiskFormat
from hostler.settings import LibvirtSettings

MIB = 1 << 20
PATIENCE_SECONDS = 60
SYSTEM_SECONDS = 120
"""A whole system needs longer than a boot sector."""


def image_ref(file: Path, disk_format: DiskFormat, virtual_size_bytes: int) -> ImageRef:
    """The image that `file` holds."""
    return ImageRef(
        id=str(uuid4()),
        disk_format=disk_format,
        size_bytes=file.stat().st_size,
        virtual_size_bytes=virtual_size_bytes,
        checksum="",
    )


def root_disk(image: ImageRef | None = None, size_bytes: int = 0) -> GuestDisk:
    """A root disk, as large as its image unless told."""
    return GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=size_bytes, bootable=True, image=image)


def port(network_id: str | None = None, hostname: str = "") -> PortBinding:
    """A port with an address in a documentation network."""
    return PortBinding(
        port_id=str(uuid4()),
        server_id=str(uuid4()),
        network_id=network_id or str(uuid4()),
        network="lan",
        mac="fa:16:3e:00:00:01",
        ip="192.0.2.7",
        prefix=26,
        gateway="192.0.2.1",
        dns=["192.0.2.2"],
        mtu=1450,
        hostname=hostname,
    )


def guest(*disks: GuestDisk, **fields: object) -> GuestSpec:
    """A small guest with these disks."""
    spec: dict[str, object] = {
        "server_id": str(uuid4()),
        "name": "web 1",
        "project": "default",
        "flavor": "tiny",
        "vcpus": 1,
        "ram_mib": 32,
        "disks": list(disks),
        "config_drive": False,
    }
    return GuestSpec.model_validate(spec | fields)


def ignore(_text: str) -> None:
    """Nobody who follows the progress."""


def domain_of(spec: GuestSpec) -> libvirt.virDomain:
    """The guest's domain, whichever host made it."""
    return libvirt.open(LibvirtSettings().uri).lookupByUUIDString(spec.server_id)


async def greeted(driver: HypervisorDriver, spec: GuestSpec) -> None:
    """Wait until the guest has greeted on its console."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while GREETING.decode().strip() not in await driver.console_log(spec.server_id, MIB):  # noqa: ASYNC110, since nothing tells of it
            await asyncio.sleep(0.2)


async def console(driver: HypervisorDriver, spec: GuestSpec, done: Callable[[str], bool]) -> str:
    """The console log once it is what the test waits for."""
    log = ""
    try:
        async with asyncio.timeout(SYSTEM_SECONDS):
            while not done(log):
                await asyncio.sleep(0.2)
                log = await driver.console_log(spec.server_id, MIB)
    except TimeoutError:
        pytest.fail(f"a guest, {await driver.power_state(spec.server_id)}, said no more than: {log!r}")
    return log


def write(file: Path, pattern: int, offset: int, length: int) -> None:
    """Write to the disk that a qcow2 file holds, as its guest would."""
    command = f"write -q -P {pattern} {offset} {length}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, file], check=True)


def holds(file: Path, pattern: int, offset: int, length: int) -> bool:
    """Whether that is on the disk."""
    command = f"read -q -P {pattern} {offset} {length}"
    done = subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", command, file], capture_output=True)
    assert done.returncode == 0 or b"verification failed" in done.stdout, done.stderr
    return done.returncode == 0


def image_info(file: Path) -> dict[str, Any]:
    """What qemu-img says of an image, also of one in use."""
    done = subprocess.run(["qemu-img", "info", "-U", "--output=json", file], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
