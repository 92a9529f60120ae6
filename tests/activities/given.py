"""What the tests of activities start from: rows, requests and plans."""

from typing import Any
from uuid import uuid4

from activities.control.servers import Servers
from activities.interfaces.servers import AcceptBoot, BootPlan, EventLog
from hostler.contract.fingerprint import fingerprint
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import BootRequest, NetworkRequest, OperationName, Step, StepStatus
from models import Database, Flavor, Image, Network
from tests.rows import add


def uuid() -> str:
    """A new UUID."""
    return str(uuid4())


def fill_catalogue(database: Database) -> None:
    """A flavor, an image and a network."""
    add(
        database,
        Flavor(id=uuid(), name="tiny", vcpus=1, ram_mib=128, disk_gib=1),
        Image(id=uuid(), name="demo", disk_format=DiskFormat.QCOW2, status=ImageStatus.ACTIVE),
        Network(id=uuid(), name="net", cidr="10.0.0.0/24", gateway="10.0.0.1"),
    )


def boot_request(**changes: Any) -> BootRequest:
    """The boot of a tiny server."""
    server_id = uuid()
    values: dict[str, Any] = {
        "server_id": server_id,
        "request_id": server_id,
        "name": "web",
        "flavor": "tiny",
        "image": "demo",
        "networks": [NetworkRequest(network="net")],
    }
    return BootRequest(**values | changes)


def accept(servers: Servers, request: BootRequest, run_id: str) -> BootPlan:
    """The request, accepted for the run."""
    return servers.accept(AcceptBoot(request=request, fingerprint=fingerprint(request), run_id=run_id))


def log(server_id: str, run_id: str, *names: str) -> EventLog:
    """A history of these steps."""
    steps = [Step(name=name, status=StepStatus.DONE) for name in names]
    return EventLog(server_id=server_id, run_id=run_id, operation=OperationName.BOOT, steps=steps)
