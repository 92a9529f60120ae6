"""The host worker: the activities that touch one machine. It holds no database and no cloud-wide credentials.

With `host.driver` "simulated" one process is any number of hosts, each with its own identity, queue and registration.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.boundary import ErrorBoundary
from activities.host.claims import Claims
from activities.host.guests import Guests
from activities.host.holdings import HostHoldings
from activities.host.images import HostImages
from activities.host.ports import HostPorts
from activities.host.volumes import HostVolumes
from activities.telemetry import ActivityTelemetry
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.cache import ImageCache
from drivers.image.local import LocalImageStore
from drivers.network.base import NetworkDriver
from drivers.volume.base import VolumeDriver
from hostler.client.errors import from_failure
from hostler.contract.calls import REGISTER_HOST
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.names import CONTROL_QUEUE, HOST, host_queue, host_workflow_id, server_workflow_id
from hostler.contract.resources import HostRegistration, Inventory
from hostler.contract.servers import VifPlugged
from hostler.settings import HostSettings, Settings
from workers.activities import methods
from workers.admission import admit, is_admitted
from workers.host_identity import forget_admission, host_id, machine_id
from workers.metrics import meter_of
from workers.power_events import forward_power
from workers.signals import stop_event
from workers.temporal import connect
from workers.unknown_steps import refuse_unknown

logger = logging.getLogger(__name__)

DRAIN = timedelta(seconds=8)
HEARTBEAT_THROTTLE = timedelta(seconds=2)
RETRY_SECONDS = 2.0
# Every poller is a call that waits at the server; a thousand simulated hosts get along with one each.
POLLERS, POLLERS_OF_MANY = 5, 1
MANY = 20
REGISTRATIONS_AT_ONCE = 20


@dataclass
class Machine:
    """One host: who it is, and its drivers. `takes_volumes`: whether new ones may be kept here."""

    id: str
    name: str
    zone: str
    directory: Path
    inventory: Inventory
    hypervisor: HypervisorDriver
    network: NetworkDriver
    images: ImageCache
    volumes: VolumeDriver | None = None
    takes_volumes: bool = True
    durable: bool = True
    machine_id: str | None = None

    def activities(self) -> list[Callable[..., Any]]:
        """Every activity of this host."""
        claims = Claims(self.directory / "claims", self.inventory, self.hypervisor, self.durable)
        families: list[object] = [
            claims,
            Guests(self.hypervisor, self.images),
            HostPorts(self.network),
            HostImages(self.images),
            HostHoldings(self.id, claims, self.hypervisor, self.network, self.images, self.volumes),
        ]
        if self.volumes is not None:
            families.append(HostVolumes(self.volumes, self.images))
        return [method for family in families for method in methods(family)]

    def registration(self) -> HostRegistration:
        """What the host says of itself."""
        return HostRegistration(
            id=self.id,
            name=self.name,
            zone=self.zone,
            inventory=self.inventory,
            volumes=self.volumes is not None and self.takes_volumes,
            machine_id=self.machine_id,
        )

    async def close(self) -> None:
        """Let go of the drivers' resources."""
        await self.hypervisor.close()
        await self.network.close()
        if self.volumes is not None:
            await self.volumes.close()


async def run(settings: Settings) -> None:
    """Work until asked to stop.

    Raises:
        InvalidRequest: it is given the database, which a host must not hold.
        Unavailable: libvirt does not answer.
        Conflict: another machine is this host.
    """
    refuse_database(settings)
    stop = stop_event()
    client = None
    if settings.host.driver == "libvirt" and not is_admitted(settings.state_dir):
        client = await connect(settings, settings.host.name, "host")
        await admit(client, settings.state_dir)  # before anything here is touched
    machines = await make_machines(settings)
    client = client or await connect(settings, machines[0].name if len(machines) == 1 else "simulated hosts", "host")
    async with serve(client, settings, machines) as duties:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, duties], return_when=asyncio.FIRST_COMPLETED)
        if duties.done():
            duties.result()
        logger.info("draining")


def refuse_database(settings: Settings) -> None:
    """See that this process was not given what only control workers may have.

    Raises:
        InvalidRequest: it was.
    """
    if settings.database.url is not None:
        raise InvalidRequest(
            "a host worker must not hold the database's URL: who breaks into a host would have the whole cloud",
            field="database.url",
            remedy="take database.url out of this machine's settings file and HOSTLER_DATABASE__URL out of the "
            "worker's environment",
        )


@asynccontextmanager
async def serve(client: Client, settings: Settings, machines: list[Machine]) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the machines' queues, register each, and pass their events on.

    Yields the task that does the latter; it ends when one of it fails.
    """
    async with AsyncExitStack() as stack:
        for machine in machines:
            stack.push_async_callback(machine.close)
            await stack.enter_async_context(host_worker(client, settings.host, machine, len(machines)))
        turns = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)
        duties = asyncio.create_task(_all([duty for one in machines for duty in _duties(client, one, turns)]))
        stack.push_async_callback(_ended, duties)
        yield duties


def host_worker(client: Client, settings: HostSettings, machine: Machine, machines: int) -> Worker:
    """The worker of one machine, not yet running."""
    return Worker(
        client,
        task_queue=host_queue(machine.id),
        activities=[*machine.activities(), refuse_unknown(machine.name)],
        identity=machine.name,
        max_concurrent_activities=settings.concurrency,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS if machines < MANY else POLLERS_OF_MANY),
        interceptors=[ActivityTelemetry(meter_of(client), machine.name), ErrorBoundary()],
        graceful_shutdown_timeout=DRAIN,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )


def _duties(client: Client, machine: Machine, turns: asyncio.Semaphore) -> list[Coroutine[Any, Any, None]]:
    return [
        register(client, machine, turns),
        forward_events(client, machine),
        forward_power(client, machine.id, machine.hypervisor),
    ]


async def _all(duties: list[Coroutine[Any, Any, None]]) -> None:
    """Do them at once; the first that fails ends the others."""
    await asyncio.gather(*duties)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def register(client: Client, machine: Machine, turns: asyncio.Semaphore) -> None:
    """Have the control plane know the host, and let it do what it owes; again until that succeeds.

    Raises:
        Conflict: another machine is this host.
    """
    host = machine.registration()
    while True:
        try:
            async with turns:
                await client.execute_workflow(
                    REGISTER_HOST,
                    host,
                    id=host_workflow_id(host.id),
                    task_queue=CONTROL_QUEUE,
                    id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
                    static_summary=f"register host {host.name}",
                    search_attributes=TypedSearchAttributes([SearchAttributePair(HOST, host.name)]),
                )
            logger.info("registered", extra={"host": host.name})
            return
        except (RPCError, WorkflowFailureError) as error:
            if isinstance(error, WorkflowFailureError) and isinstance(refusal := from_failure(error.cause), Conflict):
                forget_admission(machine.directory)
                raise refusal from error
            logger.warning("could not register: %s", error, extra={"host": host.name})
            await asyncio.sleep(RETRY_SECONDS)


async def forward_events(client: Client, machine: Machine) -> None:
    """Tell a server's operation that its port is plugged. One that no operation waits for is told to nobody."""
    async for event in machine.network.plugged():
        handle = client.get_workflow_handle(server_workflow_id(event.server_id))
        signal = VifPlugged(port_id=event.port_id, host_id=machine.id)
        while True:
            try:
                await handle.signal("vif_plugged", signal)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    logger.warning("could not pass on that a port is plugged: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
            break


async def make_machines(settings: Settings) -> list[Machine]:
    """This process's hosts with their drivers."""
    if settings.host.driver == "simulated":
        return await simulated_machines(settings)
    return [await libvirt_machine(settings)]


async def libvirt_machine(settings: Settings) -> Machine:
    """The real host that this is."""
    # libvirt and netlink are imported only where they are used: a simulated cloud needs neither.
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
    from drivers.network.local import LocalNetwork
    from drivers.volume.local import LocalVolumes

    directory, host = settings.state_dir, settings.host
    hypervisor = LibvirtHypervisor(host.libvirt, host, directory, host_id(directory))
    volumes = LocalVolumes(directory / "volumes", host.volume_address)
    await volumes.restart_exports()
    network = LocalNetwork(directory / "network", host_id(directory))
    await network.restore()
    return Machine(
        id=host_id(directory),
        name=host.name,
        zone=host.zone,
        directory=directory,
        inventory=offered(await hypervisor.inventory(), host),
        hypervisor=hypervisor,
        network=network,
        images=ImageCache(directory / "cache", LocalImageStore(settings.images_dir)),
        volumes=volumes,
        takes_volumes=host.volumes,
        machine_id=machine_id(),
    )


async def simulated_machines(settings: Settings) -> list[Machine]:
    """As many hosts as the settings say. They share one image cache: its content is not what is simulated."""
    from drivers.hypervisor.simulated import SimulatedHypervisor
    from drivers.network.simulated import SimulatedNetwork
    from drivers.volume.simulated import SimulatedVolumes

    simulated, root = settings.host.simulated, settings.state_dir / "simulated"
    images = ImageCache(root / "cache", LocalImageStore(settings.images_dir))
    machines = []
    for number in range(1, max(1, simulated.hosts) + 1):
        name = f"{simulated.name_prefix}{number}"
        network = SimulatedNetwork(simulated, name, root / name)
        hypervisor = SimulatedHypervisor(simulated, name, root / name, network, host_id(root / name))
        machines.append(
            Machine(
                id=host_id(root / name),
                name=name,
                zone=simulated.zone,
                directory=root / name,
                inventory=await hypervisor.inventory(),
                hypervisor=hypervisor,
                network=network,
                images=images,
                volumes=SimulatedVolumes(simulated, name, root / name) if simulated.volumes else None,
                durable=False,
            )
        )
    return machines


def offered(inventory: Inventory, host: HostSettings) -> Inventory:
    """What the machine has, with what the settings say that Hostler may use of it."""
    return inventory.model_copy(
        update={
            "reserved_ram_mib": host.reserved_ram_mib,
            "reserved_disk_gib": host.reserved_disk_gib,
            "cpu_ratio": host.cpu_ratio,
            "ram_ratio": host.ram_ratio,
            "disk_ratio": host.disk_ratio,
        }
    )
