"""Makes the disks of a guest that live on its host.

The root disk is a qcow2 overlay on the cached image. Ephemeral and swap disks are sparse raw files, formatted as Nova
formats them: ext4 with the label ephemeral0, ephemeral1, ..., and swap. A disk that a former guest of the server had is
taken over instead, and grown where it has to be.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from drivers.environment import clean
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.image.qcow2 import Damaged, read_header
from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import DiskFormat

RAW_KINDS = (DiskKind.EPHEMERAL, DiskKind.SWAP)
PRIVATE = 0o600


def disk_format(disk: GuestDisk) -> DiskFormat:
    """The format of a disk's file on the host."""
    return DiskFormat.RAW if disk.kind in RAW_KINDS else DiskFormat.QCOW2


def make_disks(guest: GuestSpec, files: GuestFiles, base: Path | None, kept: Mapping[str, Path] | None = None) -> None:
    """Make all local disks of the guest; `base` is the image file of the root disk.

    `kept` are the files, by device name, of the disks that there are already. They get a second name, so that they
    are still where they were.

    Raises:
        InvalidRequest: the image does not fit on its disk, or none was given.
        RescheduleError: this host could not make them, for want of space above all.
    """
    paths = files.disks(guest)
    for disk in guest.disks:
        if disk.volume_id is not None:
            continue
        if kept and disk.device in kept:
            _take_over(disk, kept[disk.device], paths[disk.device], base)
        else:
            _make(disk, paths[disk.device], base)


def _take_over(disk: GuestDisk, former: Path, path: Path, base: Path | None) -> None:
    try:
        os.link(former, path)
        if disk_format(disk) is DiskFormat.RAW:
            if path.stat().st_size < disk.size_bytes:
                os.truncate(path, disk.size_bytes)
            return
    except OSError as error:
        raise RescheduleError(f"cannot take {path.name} over: {error}") from error
    if disk.image is None and has_backing_file(path):
        raise RescheduleError(
            f"{path.name} was received without the image that it is made over, and nothing says which that is",
            remedy="let its host offer it flattened",
        )
    if disk.image is not None:
        if base is None:
            raise _without_base(disk)
        # -u: the header names where the image was on the former host; its content is the same here.
        run_tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(base), "-F", disk.image.disk_format, str(path))
    if virtual_size(path) < disk.size_bytes:
        run_tool("qemu-img", "resize", "-q", "-f", "qcow2", str(path), str(disk.size_bytes))


def virtual_size(path: Path) -> int:
    """The size of the disk that a qcow2 file holds."""
    try:
        with path.open("rb") as file:
            return read_header(file).virtual_size
    except (OSError, Damaged) as error:
        raise RescheduleError(f"{path.name} is no qcow2 file that can be used: {error}") from error


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
            run_tool("mkfs.ext4", "-q", "-F", "-L", label, str(path))
        case DiskKind.SWAP:
            run_tool("mkswap", str(path))
        case DiskKind.ROOT | DiskKind.DATA if disk.image is None:
            run_tool("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(disk.size_bytes))
        case DiskKind.ROOT | DiskKind.DATA:
            _make_overlay(disk, path, base)


def make_empty(path: Path, file_format: DiskFormat, size: int, beneath: tuple[Path, DiskFormat] | None) -> None:
    """Make a disk to which a guest's is copied; `beneath` is the image, with its format, that it is laid over.

    Raises:
        RescheduleError: this host cannot make it.
    """
    try:
        path.touch(PRIVATE)
        if file_format is DiskFormat.RAW:
            os.truncate(path, size)
            return
    except OSError as error:
        raise RescheduleError(f"cannot make {path.name}: {error}") from error
    backing = () if beneath is None else ("-u", "-b", str(beneath[0]), "-F", beneath[1])
    run_tool("qemu-img", "create", "-q", "-f", file_format, *backing, str(path), str(size))


def _make_overlay(disk: GuestDisk, path: Path, base: Path | None) -> None:
    image = disk.image
    if image is None or base is None:
        raise _without_base(disk)
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
    run_tool("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(path), str(size))


def _without_base(disk: GuestDisk) -> InvalidRequest:
    return InvalidRequest(f"disk {disk.device} is made from an image, but its file was not given")


def has_backing_file(path: Path) -> bool:
    """Whether a qcow2 file that this host or a former one made needs another file."""
    return backing_file(path) is not None


def backing_file(path: Path, *, in_use: bool = False) -> str | None:
    """The file that a qcow2 file needs which this host or another one made, by its own word.

    Raises:
        RescheduleError: it cannot be read; a guest may be writing to it, unless it may be `in_use`.
    """
    options = ["--force-share"] if in_use else []
    info = json.loads(run_tool("qemu-img", "info", *options, "-f", "qcow2", "--output=json", str(path)))
    found: str | None = info.get("backing-filename")
    return found


def run_tool(*command: str) -> str:
    """What a program prints that makes, changes or describes a disk.

    Raises:
        RescheduleError: it is not there, or fails.
    """
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", env=clean())
    except FileNotFoundError as error:
        raise RescheduleError(f"{command[0]} is not installed on this host") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise RescheduleError(f"{command[0]} failed: {said}") from error
    return done.stdout


def supports_direct_io(file: Path) -> bool:
    """Whether the file system of an existing file can bypass the page cache; tmpfs, for one, cannot."""
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True
