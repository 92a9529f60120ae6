"""What simulated hosts remember of guests and of their disks, and the files that it is in.

A root disk is a short text. An image that begins with CONTENT_PREFIX gives it to the guest, and a snapshot is such an
image, so a test can follow a disk through all that happens to it.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from drivers.durable import write_text
from hostler.contract.guests import GuestSpec
from hostler.contract.states import PowerState

CONTENT_PREFIX = b"hostler simulated disk "
CONTENT_BYTES = 4096
SNAPSHOT_BYTES = 1 << 20
NO_ADDRESS = "192.0.2.1"  # nobody's: simulated hosts read each other's files, not each other's disks

BOOT_TEXT = """\
[    0.000000] Linux version 6.1.0-simulated
[    0.021873] Memory: {ram_mib}MiB, {vcpus} CPUs
[    0.412067] virtio_blk virtio1: [vda] mounted as root
[    1.206114] Welcome to {name}, a guest that Hostler simulates
{name} login: """
HALT_TEXT = "\n[   42.000000] reboot: Power down\n"


class Record(BaseModel):
    """Something of a server that a host made."""

    server_id: str
    host_id: str | None = None


class SimulatedDisks(Record):
    """The disks that were received for a guest."""

    content: str


class SimulatedGuest(Record):
    """What is remembered of a guest; `boots` counts how often its system came up, `host_id` is who spawned it.

    `content` is what its root disk holds. `handed_over`: it is off because it was sent to another host.
    """

    name: str
    vcpus: int
    ram_mib: int
    disk_bytes: int
    ports: list[str]
    power_state: PowerState = PowerState.PAUSED
    boots: int = 0
    content: str = ""
    handed_over: bool = False

    @classmethod
    def of(cls, guest: GuestSpec, host_id: str | None, content: str) -> "SimulatedGuest":
        """A guest that was just made."""
        return cls(
            server_id=guest.server_id,
            host_id=host_id,
            name=guest.name,
            vcpus=guest.vcpus,
            ram_mib=guest.ram_mib,
            disk_bytes=guest.local_disk_bytes,
            ports=[port.port_id for port in guest.ports],
            content=content,
        )

    @property
    def console(self) -> str:
        """Everything that the guest wrote to its serial console."""
        booted = BOOT_TEXT.format_map(vars(self))
        return HALT_TEXT.join([booted] * self.boots) + (HALT_TEXT if self.power_state is PowerState.SHUTDOWN else "")


Kind = TypeVar("Kind", bound=Record)


class Records(Generic[Kind]):
    """The JSON files of a directory, one a server, named after it."""

    def __init__(self, directory: Path, kind: type[Kind]) -> None:
        self.directory = directory
        self._kind = kind

    def path(self, server_id: str) -> Path:
        """The file of a server."""
        return self.directory / f"{server_id}.json"

    def names(self) -> list[str]:
        """What there are files of, also those that are not whole."""
        return sorted(path.stem for path in self.directory.glob("*.json"))

    def read(self, server_id: str) -> Kind | None:
        """What a file remembers; None when there is none, or it is not whole."""
        with suppress(FileNotFoundError, ValueError):
            return self._kind.model_validate_json(self.path(server_id).read_text())
        return None

    def write(self, record: Kind) -> None:
        """It survives the process, not the machine."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_text(self.path(record.server_id), record.model_dump_json(), sync=False)

    def remove(self, server_id: str) -> None:
        """Remove the file, if there is one."""
        self.path(server_id).unlink(missing_ok=True)

    def move(self, server_id: str, to: "Records[Kind]") -> None:
        """Give the file to another directory, in one step and over the one that is there."""
        to.directory.mkdir(parents=True, exist_ok=True)
        self.path(server_id).replace(to.path(server_id))


def new_content(guest: GuestSpec, base: Path | None) -> str:
    """What a new root disk holds: what the image `base` says, if it is a simulated guest's, else a text of its own."""
    if base is not None:
        with suppress(FileNotFoundError), base.open("rb") as file:
            line, newline, _ = file.read(CONTENT_BYTES).partition(b"\n")
            if newline and line.startswith(CONTENT_PREFIX):
                return line.removeprefix(CONTENT_PREFIX).decode(errors="replace")
    images = [disk.image.id for disk in guest.disks if disk.image is not None]
    return hashlib.sha256(" ".join([guest.server_id, *images]).encode()).hexdigest()


def write_image(content: str, target: Path) -> None:
    """A raw image that gives its content to the guests that are made of it."""
    with target.open("wb") as file:
        file.write(CONTENT_PREFIX + content.encode() + b"\n")
        file.truncate(SNAPSHOT_BYTES)
