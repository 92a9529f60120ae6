"""What it takes to build the guest of a server that exists: read from its rows, for every operation that does so."""

from pydantic import BaseModel

from activities.interfaces.block_devices import VolumeWork
from activities.interfaces.servers import Target
from hostler.contract.guests import GuestSpec, ImageRef


class GuestPlan(BaseModel):
    """A guest, its volumes not yet connected, and the work that connects them.

    `image` is the root disk's, where that is on the host. `architecture` and `hypervisor_type` are what its disks ask
    of a host, `disk_gib` what they take of it.
    """

    guest: GuestSpec
    image: ImageRef | None = None
    volumes: list[VolumeWork] = []
    disk_gib: int
    architecture: str | None = None
    hypervisor_type: str | None = None


class PlannedTarget(Target):
    """A server that an operation has taken in order to build its guest."""

    plan: GuestPlan
