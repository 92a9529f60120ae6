"""Guests for tests of the libvirt driver."""

from pathlib import Path
from uuid import uuid4

from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, ImageRef, PortBinding
from hostler.contract.resources import DiskFormat

MIB = 1 << 20


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
