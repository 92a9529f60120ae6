"""The catalogue: flavors, images, networks, volumes, hosts, quotas and key pairs, as clients see and make them.

Fields hold plain strings and numbers; what is allowed in them is checked in `hostler.contract.validation`, so that
a bad value becomes a typed error and not a workflow that cannot read its own input.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from hostler.contract.names import DEFAULT_PROJECT, DEFAULT_ZONE


class Flavor(BaseModel):
    """A size. `disk_gib` 0 means as large as the image."""

    id: str
    name: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0


class DiskFormat(StrEnum):
    """The image formats that guests may be made from."""

    QCOW2 = "qcow2"
    RAW = "raw"


class ImageStatus(StrEnum):
    """Glance's, as far as they apply."""

    SAVING = "saving"
    ACTIVE = "active"


class ImageType(StrEnum):
    """How an image was made of a server, as in Nova. `shelved` ones keep a server's disk, and go with its return."""

    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    SHELVED = "shelved"


class ImageProperties(BaseModel):
    """What an image asks of its host, and where it comes from. Named as in Glance and Nova.

    `image_type` is an `ImageType` for an image that was made of the server `instance_uuid`; `backup_type` the kind of
    backup, "daily" say.
    """

    architecture: str | None = None
    hypervisor_type: str | None = None
    image_type: str | None = None
    backup_type: str | None = None
    instance_uuid: str | None = None


class ImageCreate(BaseModel):
    """Import the file at `path`, as the control worker sees it."""

    id: str
    name: str
    path: str
    disk_format: str = DiskFormat.QCOW2
    checksum: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: ImageProperties = ImageProperties()
    project: str = DEFAULT_PROJECT


class Image(BaseModel):
    """An image in the store. `checksum` is the SHA-256 of the file, `virtual_size_bytes` the disk that a guest sees."""

    id: str
    name: str
    status: str
    disk_format: DiskFormat
    size_bytes: int = 0
    virtual_size_bytes: int = 0
    checksum: str = ""
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: ImageProperties = ImageProperties()
    project: str = DEFAULT_PROJECT
    created_at: datetime | None = None


class Network(BaseModel):
    """A network with one IPv4 subnet. The first address is the gateway's."""

    id: str
    name: str
    cidr: str
    gateway: str | None = None
    dns: list[str] = []
    mtu: int = 1500
    project: str = DEFAULT_PROJECT
    ports: int = 0


class VolumeStatus(StrEnum):
    """Cinder's, as far as they apply."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESERVED = "reserved"
    IN_USE = "in-use"
    DELETING = "deleting"
    ERROR = "error"


class VolumeCreate(BaseModel):
    """Make a volume, blank or from an image."""

    id: str
    name: str = ""
    size_gib: int
    image: str | None = None
    project: str = DEFAULT_PROJECT


class Volume(BaseModel):
    """A volume. `host` is where its file is and is served from."""

    id: str
    name: str
    size_gib: int
    status: VolumeStatus
    image_id: str | None = None
    host_id: str | None = None
    host: str | None = None
    server_id: str | None = None
    project: str = DEFAULT_PROJECT
    created_at: datetime | None = None


class Inventory(BaseModel):
    """What a host offers. `*_ratio` is how far the scheduler may overcommit."""

    vcpus: int
    ram_mib: int
    disk_gib: int
    reserved_ram_mib: int = 0
    reserved_disk_gib: int = 0
    cpu_ratio: float = 4.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    architecture: str
    hypervisor_type: str


class HostRegistration(BaseModel):
    """What a host worker says of its host when it starts. `machine_id` tells machines apart; None: not known."""

    id: str
    name: str
    zone: str = DEFAULT_ZONE
    inventory: Inventory
    volumes: bool = False
    machine_id: str | None = None


class Owed(BaseModel):
    """What a host must do before it gets new servers: one of its activities. `reason` is why it is not done yet."""

    activity: str
    server_id: str | None = None
    since: datetime
    reason: str


class Host(BaseModel):
    """A host. `up` is Temporal's knowledge of its worker; `owed` counts the clean-ups that wait for its return.

    `owes` lists them, oldest first, where one host is shown. `down_since` is when somebody declared that the machine is
    off, and why; `fenced`: that was seen to. It holds until the host registers again.
    """

    id: str
    name: str
    zone: str
    up: bool
    enabled: bool
    disabled_reason: str | None = None
    down_since: datetime | None = None
    down_reason: str | None = None
    fenced: bool = False
    owed: int = 0
    owes: list[Owed] = []
    servers: int = 0
    used_vcpus: int = 0
    used_ram_mib: int = 0
    used_disk_gib: int = 0
    inventory: Inventory
    registered_at: datetime | None = None


class Aggregate(BaseModel):
    """Hosts with something in common, as in Nova: `metadata` says what. `hosts` are their names."""

    id: str
    name: str
    metadata: dict[str, str] = {}
    hosts: list[str] = []
    created_at: datetime | None = None


class Quota(BaseModel):
    """A project's limits (-1: none) and, where shown, what it uses."""

    project: str = DEFAULT_PROJECT
    servers: int = 100
    vcpus: int = 200
    ram_mib: int = 512 * 1024
    volumes: int = 100
    volume_gib: int = 10_000
    used_servers: int = 0
    used_vcpus: int = 0
    used_ram_mib: int = 0
    used_volumes: int = 0
    used_volume_gib: int = 0


class KeyPair(BaseModel):
    """A public key that a server's metadata offers to its guest."""

    name: str
    public_key: str
    fingerprint: str = ""
    project: str = DEFAULT_PROJECT
