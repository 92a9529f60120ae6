"""What a host needs to know to run a guest: the vocabulary between workflows, host activities and drivers."""

from datetime import timedelta
from enum import StrEnum

from pydantic import BaseModel, Field

from hostler.contract.resources import DiskFormat


class ImageRef(BaseModel):
    """An image as a host fetches it. `checksum` is SHA-256."""

    id: str
    disk_format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    checksum: str


class DiskKind(StrEnum):
    """What a disk is for."""

    ROOT = "root"
    EPHEMERAL = "ephemeral"
    SWAP = "swap"
    DATA = "data"


class VolumeConnection(BaseModel):
    """How QEMU reaches a volume: an NBD export."""

    volume_id: str
    host: str
    port: int
    export: str
    disk_format: DiskFormat = DiskFormat.RAW


class GuestDisk(BaseModel):
    """A disk of a guest: on the host (from `image`, or blank), or a volume (`volume_id`, then `connection`).

    `create` tells a volume that the boot makes from one that exists.
    """

    kind: DiskKind
    device: str
    size_bytes: int
    bootable: bool = False
    image: ImageRef | None = None
    volume_id: str | None = None
    create: bool = False
    connection: VolumeConnection | None = None
    guest_format: str | None = None
    delete_on_termination: bool = True


class PortBinding(BaseModel):
    """A port with all that a host needs to plug it. `prefix` is the subnet's prefix length, `vni` the network's number
    in the overlay.
    """

    port_id: str
    server_id: str
    network_id: str
    network: str
    mac: str
    ip: str
    prefix: int
    gateway: str
    dns: list[str] = []
    mtu: int = 1500
    vni: int | None = None
    hostname: str = ""


SECRETS = ("user_data", "admin_password", "key")


class GuestSpec(BaseModel):
    """A guest, complete. `user_data` is base64; secrets are masked wherever they would be printed.

    `received`: its disks came from another host and wait beside it. `preserve_ephemeral`: its ephemeral disks are those
    of the guest that was set aside for it. `taken_over_from`: the UUID of the host that is down on which it was; where
    hosts share storage its disks are those that it had there.
    """

    server_id: str
    name: str
    project: str
    flavor: str
    vcpus: int
    ram_mib: int
    disks: list[GuestDisk]
    ports: list[PortBinding] = []
    metadata: dict[str, str] = {}
    public_keys: dict[str, str] = {}
    user_data: str | None = None
    config_drive: bool = True
    availability_zone: str | None = None
    admin_password: str | None = None
    received: bool = False
    preserve_ephemeral: bool = False
    taken_over_from: str | None = None

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return [(k, "***" if k in SECRETS and v else v) for k, v in super().__repr_args__()]

    @property
    def local_disk_bytes(self) -> int:
        """What the guest's disks may grow to on the host."""
        return sum(d.size_bytes for d in self.disks if d.volume_id is None)


class DiskOffer(BaseModel):
    """A file of a guest's that its host serves to the next one: byte for byte, over NBD with TLS.

    `file` is its name among the guest's, the same on every host; `checksum` the SHA-256 of its content. `stored_bytes`
    is what the file takes there without its holes; None of a host that does not say.
    """

    file: str
    size_bytes: int
    stored_bytes: int | None = None
    checksum: str
    host: str
    port: int
    export: str


class DisksOffer(BaseModel):
    """All that a guest's host serves of it. `key` is the TLS pre-shared key, hexadecimal: a secret.

    Where the disks are on shared storage, `host_id` is that host, and `probe` the name of a file beside them: whoever
    sees it need not fetch them.
    """

    server_id: str
    disks: list[DiskOffer]
    key: str
    host_id: str | None = None
    probe: str | None = None

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return [(k, "***" if k in SECRETS and v else v) for k, v in super().__repr_args__()]


class DescribedDisk(BaseModel):
    """A local disk of a guest that runs: its name in the domain, its file's name, and how large it is to the guest.

    `shared`: its file is on storage that hosts share, and is not copied.
    """

    target: str
    file: str
    size_bytes: int
    disk_format: DiskFormat
    shared: bool = False


class GuestDescription(BaseModel):
    """A guest that runs, as its next host must know it to take it in.

    `live` and `persistent` are its domain, as it is and as it is defined, where the hypervisor has such;
    `hypervisor_version` is that of what runs it, `virt_type` kvm or qemu. Where some of its disks are shared, `host_id`
    is its host, and `probe` the name of a file beside them that whoever sees it sees the disks. `config_drive` is the
    drive as the guest has it, compressed and in base64: a secret; None where it has none, or one too large for this.
    """

    server_id: str
    live: str
    persistent: str
    disks: list[DescribedDisk] = []
    virt_type: str
    hypervisor_version: int = 0
    host_id: str | None = None
    probe: str | None = None
    config_drive: str | None = Field(default=None, repr=False)


class Incoming(BaseModel):
    """A host that is ready to take a guest in. `address` is where memory and disks go; `uri` its hypervisor, by its own
    word: where that would be opened, it is made of the address.

    `live` and `persistent` are the domain as it will be there. `disks` are to be copied, by their names in the domain;
    `whole`: with what they have of their image, else without. `shared`: others are there already, the very same files.
    """

    server_id: str
    uri: str
    address: str
    live: str
    persistent: str
    disks: list[str] = []
    whole: bool = False
    shared: bool = False


class MigrationLimits(BaseModel):
    """How a guest moves while it runs: the settings' word, or the request's. See `LiveMigrationSettings`.

    `completion_timeout` is that of the whole, zero: none.
    """

    downtime: timedelta = timedelta(milliseconds=500)
    bandwidth_mib: int = 0
    completion_timeout: timedelta = timedelta(0)
    force_complete: bool = False
    auto_converge: bool = False
    post_copy: bool = False


class MigrationReport(BaseModel):
    """How a guest got across. `downtime` is how long it stood still, as far as its hypervisor knows."""

    duration: timedelta
    downtime: timedelta
    memory_bytes: int = 0
    disk_bytes: int = 0

    def __str__(self) -> str:
        moved = (self.memory_bytes + self.disk_bytes) / 2**20
        seconds, stood = self.duration.total_seconds(), self.downtime.total_seconds()
        rate = f" ({moved / seconds:.0f} MiB/s)" if seconds else ""
        return f"{moved:.0f} MiB in {seconds:.1f} s{rate}, the guest stood still for {1000 * stood:.0f} ms"


class Whereabouts(StrEnum):
    """What a host says of a guest that it was to send to another: still here, handed over, off, or gone altogether.

    A host that was itself down since may not know that it has handed a guest over: it says that the guest is off.
    """

    HERE = "here"
    HANDED_OVER = "handed-over"
    OFF = "off"
    GONE = "gone"


class Arrival(StrEnum):
    """What a host says of a guest that was to come: all of it is here, and runs, stands still or is off; or not."""

    RUNS = "runs"
    COME = "come"
    OFF = "off"
    NOTHING = "nothing"


class ClaimSpec(BaseModel):
    """What a guest takes of its host."""

    server_id: str
    vcpus: int
    ram_mib: int
    disk_gib: int


class VolumeSpec(BaseModel):
    """A volume to make on the host that keeps its file."""

    volume_id: str
    size_gib: int
    image: ImageRef | None = None
