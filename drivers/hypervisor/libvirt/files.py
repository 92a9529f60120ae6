"""Where a guest's files are: one directory a guest, `<state_dir>/guests/<server_id>/`.

Beside it may be the guest that was set aside for it, in `<server_id>.former/`, and the disks that were received from
another host for it, in `<server_id>.incoming/`.

Where hosts share storage, the disks that move with a guest are in a directory of the same name in this host's part of
that, and so is what is received; see `shared`.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.names import is_uuid

FORMER, INCOMING = ".former", ".incoming"
ROOT_DISK = "disk"
EPHEMERAL_DISK = "disk.eph"
SWAP_DISK = "disk.swap"
CONFIG_DRIVE = "disk.config"
_DISK = re.compile(r"disk(\.[a-z0-9]+)?")


@dataclass(frozen=True)
class GuestFiles:
    """The paths of one guest. QEMU reaches them as another user, so that their parents must let it pass.

    `shared` is its directory on storage that hosts share; without one all of it is in `directory`.
    """

    directory: Path
    shared: Path | None = None

    @classmethod
    def of(cls, guests_dir: Path, server_id: str, shared_dir: Path | None = None) -> "GuestFiles":
        """The files of a server; `shared_dir` is this host's part of the storage that hosts share.

        Raises:
            InvalidRequest: `server_id` is no UUID. It becomes a path, and that path is removed one day.
        """
        if not is_uuid(server_id):
            raise InvalidRequest("a server's ID is a UUID", field="server_id", value=server_id)
        return cls(guests_dir / server_id, None if shared_dir is None else shared_dir / server_id)

    @property
    def former(self) -> "GuestFiles":
        """Those of the guest that was set aside."""
        name = self.directory.name + FORMER
        return GuestFiles(self.directory.with_name(name), None if self.shared is None else self.shared.with_name(name))

    @property
    def incoming(self) -> "GuestFiles":
        """Those that were received: on the file system where they are to stay."""
        return GuestFiles((self.shared or self.directory).with_name(self.directory.name + INCOMING))

    @property
    def is_shared(self) -> bool:
        """Whether its disks are on shared storage: not those of a guest that was made before there was such."""
        return self.shared is not None and self.shared.exists()

    @property
    def disk_directory(self) -> Path:
        """Where the disks are that move with it."""
        return self.shared if self.shared is not None and self.is_shared else self.directory

    def disk(self, name: str) -> Path:
        """The file of this name."""
        return (self.disk_directory if movable_disk(name) else self.directory) / name

    @property
    def host(self) -> Path:
        """The UUID of the host that made the guest, written before everything else."""
        return self.directory / "host"

    def host_id(self) -> str | None:
        """That UUID, where it is there."""
        try:
            written = self.host.read_text().strip()
        except FileNotFoundError:
            return None
        return written if is_uuid(written) else None

    @property
    def freezing(self) -> Path:
        """There while the file systems in the guest are frozen, or may be."""
        return self.directory / "freezing"

    @property
    def config_drive(self) -> Path:
        """The config drive, an ISO 9660 image."""
        return self.directory / CONFIG_DRIVE

    @property
    def root_disk(self) -> Path:
        """The root disk, if it is no volume."""
        return self.disk(ROOT_DISK)

    @property
    def domain_xml(self) -> Path:
        """The domain of a guest while libvirt shall not know it."""
        return self.directory / "domain.xml"

    @property
    def console_log(self) -> Path:
        """All that the guest wrote to its serial console; virtlogd keeps older parts as `console.log.0` and so on."""
        return self.directory / "console.log"

    def disks(self, guest: GuestSpec) -> dict[str, Path]:
        """The file of each disk that is not a volume, by device name. Named as Nova names them."""
        local = [disk for disk in guest.disks if disk.volume_id is None]
        ephemeral = [disk.device for disk in local if disk.kind is DiskKind.EPHEMERAL]

        def name(disk: GuestDisk) -> str:
            match disk.kind:
                case DiskKind.ROOT:
                    return ROOT_DISK
                case DiskKind.EPHEMERAL:
                    return f"{EPHEMERAL_DISK}{ephemeral.index(disk.device)}"
                case DiskKind.SWAP:
                    return SWAP_DISK
                case DiskKind.DATA:
                    return f"disk.{target(disk)}"

        return {disk.device: self.disk(name(disk)) for disk in local}


def movable_disk(name: str) -> bool:
    """Whether a file of this name is a disk that moves with its guest: swap and config drive are made anew."""
    return name not in (SWAP_DISK, CONFIG_DRIVE) and is_disk(name)


def is_disk(name: str) -> bool:
    """Whether a file of this name is a disk of a guest, its config drive included."""
    return _DISK.fullmatch(name) is not None


def server_of(path: Path) -> str | None:
    """The server that a path among the guests' is of; None where it is of none."""
    server_id = path.name.removesuffix(FORMER).removesuffix(INCOMING)
    return server_id if is_uuid(server_id) else None


def target(disk: GuestDisk) -> str:
    """The disk's device name as libvirt wants it: vda, also for /dev/vda."""
    return PurePath(disk.device).name
