"""Makes the disks of a guest that live on its host.

The root disk is a qcow2 overlay on the cached image. Ephemeral and swap disks are sparse raw files, formatted as Nova
formats them: ext4 with the label ephemeral0, ephemeral1, ..., and swap.
"""

import os
import subprocess
from pathlib import Path

from drivers.environment import clean
from drivers.hypervisor.libvirt.files import GuestFiles
from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import DiskFormat

RAW_KINDS = (DiskKind.EPHEMERAL, DiskKind.SWAP)
PRIVATE = 0o600


def disk_format(disk: GuestDisk) -> DiskFormat:
    """The format of a disk's file on the host."""
    return DiskFormat.RAW if disk.kind in RAW_KINDS else DiskFormat.QCOW2


def make_disks(guest: GuestSpec, files: GuestFiles, base: Path | None) -> None:
    """Make all local disks of the guest; `base` is the image file of the root disk.

    Raises:
        InvalidRequest: the image does not fit on its disk, or none was given.
        RescheduleError: this host could not make them, for want of space above all.
    """
    paths = files.disks(guest)
    for disk in guest.disks:
        if disk.volume_id is None:
            _make(disk, paths[disk.device], base)


def _make(disk: GuestDisk, path: Path, base: Path | None) -> None:
    try:
        path.touch(PRIVATE)  # libvirt hands it to QEMU's user, and back
        if disk_format(disk) is DiskFormat.RAW:
            os.truncate(path, disk.size_bytes)
    except OSError as error:
        raise RescheduleError(f"cannot make {path.name}: {error}") from error
    match disk.kind:
        case DiskKind.EPHEMERAL:
            label = path.name.replace("disk.eph", "ephemeral")
            _run("mkfs.ext4", "-q", "-F", "-L", label, str(path))
        case DiskKind.SWAP:
            _run("mkswap", str(path))
        case DiskKind.ROOT | DiskKind.DATA if disk.image is None:
            _run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(disk.size_bytes))
        case DiskKind.ROOT | DiskKind.DATA:
            _make_overlay(disk, path, base)


def _make_overlay(disk: GuestDisk, path: Path, base: Path | None) -> None:
    image = disk.image
    if image is None or base is None:
        raise InvalidRequest(f"disk {disk.device} is made from an image, but its file was not given")
    if 0 < disk.size_bytes < image.virtual_size_bytes:
        raise InvalidRequest(
            f"image {image.id} is a disk of {image.virtual_size_bytes} bytes, more than the {disk.size_bytes} "
            f"of disk {disk.device}",
            field="flavor",
            remedy="choose a flavor with a larger disk",
        )
    # -u: qemu-img writes the overlay without opening the image, which comes from a tenant.
    backing = ("-u", "-b", str(base), "-F", image.disk_format)
    size = disk.size_bytes or image.virtual_size_bytes
    _run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(path), str(size))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", env=clean())
    except FileNotFoundError as error:
        raise RescheduleError(f"{command[0]} is not installed on this host") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise RescheduleError(f"{command[0]} failed: {said}") from error


def supports_direct_io(file: Path) -> bool:
    """Whether the file system of an existing file can bypass the page cache; tmpfs, for one, cannot."""
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True
