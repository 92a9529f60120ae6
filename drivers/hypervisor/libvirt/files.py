"""Where a guest's files are: one directory a guest, `<state_dir>/guests/<server_id>/`."""

from dataclasses import dataclass
from pathlib import Path, PurePath

from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.names import is_uuid


@dataclass(frozen=True)
class GuestFiles:
    """The paths of one guest. QEMU reaches them as another user, so that their parents must let it pass."""

    directory: Path

    @classmethod
    def of(cls, guests_dir: Path, server_id: str) -> "GuestFiles":
        """The files of a server.

        Raises:
            InvalidRequest: `server_id` is no UUID. It becomes a path, and that path is removed one day.
        """
        if not is_uuid(server_id):
            raise InvalidRequest("a server's ID is a UUID", field="server_id", value=server_id)
        return cls(guests_dir / server_id)

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
    def config_drive(self) -> Path:
        """The config drive, an ISO 9660 image."""
        return self.directory / "disk.config"

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
                    return "disk"
                case DiskKind.EPHEMERAL:
                    return f"disk.eph{ephemeral.index(disk.device)}"
                case DiskKind.SWAP:
                    return "disk.swap"
                case DiskKind.DATA:
                    return f"disk.{target(disk)}"

        return {disk.device: self.directory / name(disk) for disk in local}


def target(disk: GuestDisk) -> str:
    """The disk's device name as libvirt wants it: vda, also for /dev/vda."""
    return PurePath(disk.device).name
