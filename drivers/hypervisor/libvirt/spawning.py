"""Makes a guest's files: its directory, its disks, be they new or taken over, and its config drive. All calls block."""

from pathlib import Path

from drivers.durable import write_text
from drivers.hypervisor.libvirt.disks import has_backing_file, make_disks
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.receiving import is_whole
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec

TRAVERSABLE = 0o711  # QEMU, which is another user, may open what it knows the name of


def kept_disks(guest: GuestSpec, files: GuestFiles) -> dict[str, Path]:
    """The files, by device name, of the guest's disks that there are already: received, or a former guest's.

    Raises:
        RescheduleError: those that were to be received are not here.
    """
    if guest.received and not is_whole(files.incoming):
        raise RescheduleError(
            f"the disks of server {guest.server_id} have not arrived in {files.incoming.directory}",
            remedy="let the host receive them again, from the guest that was set aside",
        )
    paths = files.disks(guest)
    kept = {}
    for disk in guest.disks:
        sources = []
        if guest.received:
            sources.append(files.incoming)
        if guest.preserve_ephemeral and disk.kind is DiskKind.EPHEMERAL:
            sources.append(files.former)
        for source in sources:
            if disk.device in paths and (path := source.disk(paths[disk.device].name)).exists():
                kept[disk.device] = path
                break
        else:
            if disk.device in paths and _must_be_kept(guest, disk):
                raise RescheduleError(
                    f"{paths[disk.device].name} of server {guest.server_id}, which was to be kept, is not here",
                    remedy="find out what became of it before a new one is made in its place",
                )
    return kept


def as_they_are(guest: GuestSpec, kept: dict[str, Path]) -> GuestSpec:
    """The guest without the image of a disk that stands alone by now: laid over one, what it does not hold would show.

    An image may be there again that was gone when the disk was last moved; a server's root disk may once have been made
    of another one than the server's.
    """
    disks = [
        disk.model_copy(update={"image": None})
        if disk.image is not None and disk.device in kept and not has_backing_file(kept[disk.device])
        else disk
        for disk in guest.disks
    ]
    return guest.model_copy(update={"disks": disks})


def _must_be_kept(guest: GuestSpec, disk: GuestDisk) -> bool:
    """Whether a new disk in its place would be a loss. A move may bring a first ephemeral disk."""
    if guest.received:
        return disk.kind is DiskKind.ROOT
    return guest.preserve_ephemeral and disk.kind is DiskKind.EPHEMERAL


def make_files(guest: GuestSpec, files: GuestFiles, base: Path | None, host_id: str, kept: dict[str, Path]) -> None:
    """Make the directory and all disks; `kept` as `kept_disks` found them.

    Raises:
        InvalidRequest: the image does not fit on its disk, or none was given.
        RescheduleError: this host cannot make them.
    """
    make_directory(files, host_id)
    make_disks(guest, files, base, kept)


def make_directory(files: GuestFiles, host_id: str) -> None:
    """Make the directory, with the record of whose it is, and the console's log.

    Raises:
        RescheduleError: this host cannot make them.
    """
    try:
        for directory in (files.directory.parent, files.directory):
            directory.mkdir(exist_ok=True)
            directory.chmod(TRAVERSABLE)
        write_text(files.host, f"{host_id}\n")
        if files.shared is not None:
            files.shared.mkdir(exist_ok=True)
            files.shared.chmod(TRAVERSABLE)
        files.console_log.touch(0o640)  # made by this worker, so that it may read it; virtlogd's own would be root's
    except OSError as error:
        raise RescheduleError(f"cannot make the guest's files: {error}") from error
