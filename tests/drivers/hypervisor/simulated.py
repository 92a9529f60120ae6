"""Simulated hosts of tests, and guests for them."""

from pathlib import Path
from uuid import uuid4

from drivers.hypervisor.simulated import SimulatedHypervisor
from drivers.hypervisor.simulated_guests import SimulatedGuest
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, PortBinding
from hostler.contract.states import PowerState
from hostler.settings import SimulatedSettings

NOSTATE, PAUSED, RUNNING, SHUTDOWN = (
    PowerState.NOSTATE,
    PowerState.PAUSED,
    PowerState.RUNNING,
    PowerState.SHUTDOWN,
)
SETTINGS = SimulatedSettings(vcpus=8, ram_mib=4096, disk_gib=100)
GIB = 1024**3
ONE, OTHER = str(uuid4()), str(uuid4())


class Taps:
    """Remembers which ports are plugged."""

    def __init__(self) -> None:
        self.up: set[str] = set()

    def plug(self, port_id: str) -> None:
        self.up.add(port_id)

    def unplug(self, port_id: str) -> None:
        self.up.discard(port_id)


def port(port_id: str) -> PortBinding:
    return PortBinding(
        port_id=port_id,
        server_id="",
        network_id="n",
        network="lan",
        mac="fa:16:3e:00:00:01",
        ip="10.0.0.5",
        prefix=24,
        gateway="10.0.0.1",
    )


def guest(name: str = "web-1", ram_mib: int = 512, disk_gib: int = 5) -> GuestSpec:
    return GuestSpec(
        server_id=str(uuid4()),
        name=name,
        project="default",
        flavor="m1.tiny",
        vcpus=1,
        ram_mib=ram_mib,
        disks=[GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=disk_gib * GIB)],
        ports=[port(str(uuid4()))],
        user_data="c2VjcmV0",
    )


def ignore(_: str) -> None:
    """Nobody listens to the reports."""


class Host:
    """A simulated host whose worker can die."""

    def __init__(self, directory: Path, host_id: str, settings: SimulatedSettings = SETTINGS) -> None:
        self.directory = directory
        self.host_id = host_id
        self.settings = settings
        self.taps = Taps()
        self.driver = self.reborn()

    def reborn(self) -> SimulatedHypervisor:
        """The next worker's driver."""
        self.driver = SimulatedHypervisor(self.settings, "sim-1", self.directory, self.taps, self.host_id)
        return self.driver

    def file(self, kind: str, server_id: str) -> Path:
        return self.directory / kind / f"{server_id}.json"

    def content(self, server_id: str) -> str:
        """What the guest's root disk holds."""
        return SimulatedGuest.model_validate_json(self.file("guests", server_id).read_text()).content
