"""Guests' disks on storage that all hosts see. All calls block.

Each host has a directory of its own there, `<shared_disks>/<host UUID>/`, and removes nothing elsewhere. A guest's
disks are in `<server_id>/` in it. A host that takes a guest over gives its disks names in its own directory (hard
links): a file goes with the last of its names. So nothing has to be handed over, and nothing given back.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drivers.directories import first_closed
from drivers.hypervisor.libvirt.connection import Connection
from drivers.hypervisor.libvirt.disks import backing_file, disk_format, supports_direct_io
from drivers.hypervisor.libvirt.files import FORMER, GuestFiles, movable_disk
from drivers.hypervisor.libvirt.migration_xml import LocalDisk, local_disks
from drivers.hypervisor.libvirt.qemu_user import qemu_user
from hostler.contract.errors import HostlerError, InvalidRequest, RescheduleError, Unavailable
from hostler.contract.guests import DisksOffer, GuestDescription, GuestDisk, GuestSpec
from hostler.contract.names import is_uuid
from hostler.contract.resources import DiskFormat

SETTING = "host.libvirt.shared_disks"
PROBE = "probe."
TRAVERSABLE = 0o711
UNCACHED = ("none", "directsync")


class SharedDisks:
    """One host's view of that storage; `root` is where it is here, None without one."""

    def __init__(self, root: Path | None, host_id: str, connection: Connection) -> None:
        self._root = None if root is None else root.absolute()
        self._host_id = host_id
        self._connection = connection

    @property
    def home(self) -> Path | None:
        """This host's own directory."""
        return None if self._root is None else self._root / self._host_id

    def make_home(self) -> None:
        """Make that directory. Not the storage: were it not mounted, disks would be where no other host sees them.

        Raises:
            Unavailable: the storage is not there, or cannot be used.
        """
        home = self.home
        if home is None:
            return
        remedy = "mount it, and let root write there (NFS: no_root_squash)"
        with self._refusing("the directory of shared disks cannot be used", remedy, Unavailable):
            home.mkdir(exist_ok=True)
            home.chmod(TRAVERSABLE)
        if closed := first_closed(home):
            message = f"QEMU's user may not enter {closed}, above the shared disks"
            raise self._refusal(message, f"chmod o+x {closed}", Unavailable)

    def make_probe(self, files: GuestFiles) -> str | None:
        """The name of a new file beside the guest's disks; None if they are not shared.

        A new name each time: a host may remember for a while that a file was not there.
        """
        if files.shared is None or not files.is_shared:
            return None
        for old in files.shared.glob(f"{PROBE}*"):
            old.unlink(missing_ok=True)
        probe = files.shared / f"{PROBE}{secrets.token_hex(16)}"
        probe.touch()
        return probe.name

    def seen(self, description: GuestDescription, base: Path | None) -> dict[str, Path]:
        """The shared disks of a guest that runs on another host, by the names of their files.

        Not one over an image that is no longer in the catalogue: only that host has the image, and the disk is copied.

        Raises:
            RescheduleError: this host does not see them, or cannot use them while it runs there.
        """
        shared = [disk.file for disk in description.disks if disk.shared]
        if not shared:
            return {}
        directory = self._directory_of(description)
        of_domain = {disk.file: disk for disk in local_disks(description.live)}
        found = {}
        for name in shared:
            if not movable_disk(name) or name not in of_domain:
                raise RescheduleError(f"{name!r} is no name of a guest's disk", field="disks", value=name)
            if base is None and of_domain[name].backing is not None:
                continue
            found[name] = directory / name
            self._check_owner(found[name])
            _check_cache(of_domain[name], found[name])
            if base is not None:
                _check_base(of_domain[name], found[name], base)
        return found

    def offered(self, offer: DisksOffer) -> Path | None:
        """Where this host sees the disks that another offers; None where it must fetch them."""
        if self._root is None or not is_uuid(offer.host_id or "") or not is_uuid(offer.server_id):
            return None
        directory = self._root / str(offer.host_id) / f"{offer.server_id}{FORMER}"
        with suppress(OSError):
            if _is_probe(offer.probe) and (directory / str(offer.probe)).exists():
                return directory
        return None

    def link(self, disks: dict[str, Path], files: GuestFiles) -> None:
        """Give these disks names among the guest's own.

        Raises:
            RescheduleError: the storage does not let this host.
        """
        remedy = "all hosts must have the same directory, mounted as one file system that has hard links"
        for name, path in disks.items():
            with self._refusing(f"cannot give the shared disk {path} another name", remedy):
                os.link(path, files.disk(name))

    def taken_over(self, guest: GuestSpec, base: Path | None) -> tuple[GuestSpec, dict[str, Path]]:
        """The disks, by device name, that the guest had on a host that is down, and the guest as it is with them.

        None where they were not shared. A disk that stands alone by now has no image.

        Raises:
            RescheduleError: it cannot be told which they are, or they are in use.
        """
        if self._root is None or guest.taken_over_from is None:
            return guest, {}
        directory = self._directory_on(guest.taken_over_from, guest.server_id)
        if directory is None:
            return guest, {}
        paths = GuestFiles(directory).disks(guest)
        disks, found = [], {}
        for disk in guest.disks:
            if disk.device in paths and movable_disk(paths[disk.device].name):
                found[disk.device] = path = paths[disk.device]
                disks.append(_as_it_is(disk, path, base))
            else:
                disks.append(disk)
        return guest.model_copy(update={"disks": disks}), found

    def give_to_qemu(self, files: GuestFiles) -> None:
        """Make QEMU's user the owner of the shared disks, for libvirt is told to leave them alone.

        Raises:
            RescheduleError: the storage does not let this host.
        """
        owner = qemu_user(self._connection) if files.is_shared else None
        if owner is None:
            return
        for path in filter(lambda path: movable_disk(path.name), files.disk_directory.iterdir()):
            with self._refusing(f"cannot give {path} to QEMU's user", "let root do so there (NFS: no_root_squash)"):
                os.chown(path, *owner)

    def _directory_of(self, description: GuestDescription) -> Path:
        """Where its disks are."""
        if self._root is None:
            raise self._refusal(
                "the guest's disks are on shared storage, of which this host has none",
                f"set {SETTING} on all hosts of the cloud, or migrate it powered off",
            )
        host_id, server_id, probe = description.host_id or "", description.server_id, description.probe
        directory = self._root / host_id / server_id
        known = is_uuid(host_id) and is_uuid(server_id) and _is_probe(probe)
        if not known or not (directory / str(probe)).exists():
            raise self._refusal(
                f"host {host_id} has the guest's disks on shared storage, and they are not in {directory} here",
                "mount the same storage on all hosts, each at its own setting",
            )
        return directory

    def _directory_on(self, host_id: str, server_id: str) -> Path | None:
        """Where the disks are that a server had on a host that is down; None where it had none there."""
        if not is_uuid(host_id):
            raise InvalidRequest("a host's ID is a UUID", field="taken_over_from", value=host_id)
        home = (self._root or Path()) / host_id
        if not home.is_dir():
            raise self._refusal(
                f"host {host_id} has no directory in {self._root}: it is not mounted here, or that host's disks were "
                "its own, and lost",
                f"mount it; if they are lost, so that the server is to be built from its image: mkdir {home}",
            )
        match [path for path in (home / server_id, home / f"{server_id}{FORMER}") if path.is_dir()]:
            case []:
                return None
            case [directory]:
                return directory
            case both:
                raise RescheduleError(
                    f"server {server_id} has disks in {both[0]} and, of a move or a rebuild, in {both[1]}",
                    field="server_id",
                    value=server_id,
                    remedy="move away the directory that has the wrong ones",
                )

    def _check_owner(self, path: Path) -> None:
        owner, found = qemu_user(self._connection), path.stat()
        if owner is not None and owner != (found.st_uid, found.st_gid):
            raise self._refusal(
                f"{path} belongs to {found.st_uid}:{found.st_gid}, and QEMU runs as {owner[0]}:{owner[1]} here",
                "give QEMU's user and group the same numbers on all hosts",
            )

    @contextmanager
    def _refusing(self, trouble: str, remedy: str, kind: type[HostlerError] = RescheduleError) -> Iterator[None]:
        """What the storage does not let this host do is refused."""
        try:
            yield
        except OSError as error:
            raise self._refusal(f"{trouble}: {error}", remedy, kind) from error

    def _refusal(self, message: str, remedy: str, kind: type[HostlerError] = RescheduleError) -> HostlerError:
        """Somebody must look after the storage, or after the setting that says where it is."""
        return kind(message, field=SETTING, value=self._root, remedy=remedy)


def _is_probe(name: str | None) -> bool:
    return name is not None and name.startswith(PROBE) and "/" not in name


def _check_cache(disk: LocalDisk, path: Path) -> None:
    """What one host kept in its page cache the other would not see."""
    if disk.cache in UNCACHED and supports_direct_io(path):
        return
    raise RescheduleError(
        f"{path} is written through a host's page cache: another host would not see all of it",
        field="disks",
        value=disk.file,
        remedy="migrate it powered off; have shared disks, and state_dir, on file systems that know O_DIRECT",
    )


def _check_base(disk: LocalDisk, path: Path, base: Path) -> None:
    """The disk itself says where the image beneath it is; that cannot be changed while it is in use."""
    if disk.backing is None:
        return
    beneath = backing_file(path, in_use=True)
    if beneath != str(base):
        raise _elsewhere(path, beneath, base)


def _elsewhere(path: Path, beneath: str | None, base: Path) -> RescheduleError:
    return RescheduleError(
        f"{path} is made over the image {beneath}, which is {base} on this host",
        field="state_dir",
        value=str(base),
        remedy="have the same state_dir on all hosts, or migrate it powered off",
    )


def _as_it_is(disk: GuestDisk, path: Path, base: Path | None) -> GuestDisk:
    """The disk over the image over which its file is, if any."""
    if not path.exists():
        raise RescheduleError(
            f"{path.name} of the server is not in {path.parent}",
            field="device",
            value=disk.device,
            remedy=f"put it there; if the server is to be built from its image: move {path.parent} away",
        )
    if disk_format(disk) is DiskFormat.RAW:
        return disk
    try:
        beneath = backing_file(path)
    except RescheduleError as error:
        raise RescheduleError(
            f"the server's disk cannot be taken over: {error}",
            field="device",
            value=disk.device,
            remedy="if a guest uses it, its host is not down: see there",
        ) from error
    if beneath is None:
        return disk.model_copy(update={"image": None})
    if base is None or disk.image is None or Path(beneath).name != base.name:
        raise RescheduleError(
            f"{path} is made over image {Path(beneath).name}, which cannot be had",
            field="image",
            value=Path(beneath).name,
            remedy="import the same file again under its UUID (hostler image create --id), or wait for the host; if "
            f"the server is to be built from its image, without what it had: move {path.parent} away",
        )
    if beneath != str(base):
        raise _elsewhere(path, beneath, base)
    return disk


def direct_io(files: GuestFiles) -> bool:
    """Whether all file systems with disks of the guest, whose files are there, can bypass the page cache."""
    disks = [path for path in files.disk_directory.iterdir() if movable_disk(path.name)]
    return all(supports_direct_io(path) for path in [files.console_log, *disks[:1]])
