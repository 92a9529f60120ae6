"""A cloud in one process: real workers and workflows on a real Temporal server, hosts that are simulated.

What a test must not leave behind is in `Cloud.world`.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import temporalio.client
from sqlmodel import col, select
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from activities.control.temporal import Temporal
from drivers.image.local import LocalImageStore
from drivers.network.records import PortRecords
from drivers.volume.local import LocalVolumes
from hostler import Client
from hostler.client import Operation
from hostler.codec import data_converter
from hostler.contract.errors import HostlerError
from hostler.contract.host_work import WATCH_HOSTS
from hostler.contract.names import host_workflow_id, is_uuid
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import Progress, Server
from hostler.encryption import DEFAULT_FILE, Key
from hostler.private_files import write_private
from hostler.settings import (
    HostSettings,
    OperationSettings,
    SchedulerSettings,
    Settings,
    SimulatedFault,
    SimulatedSettings,
    TemporalSettings,
    TimeoutSettings,
)
from models import (
    Allocation,
    BlockDevice,
    Database,
    Flavor,
    Host,
    Image,
    Network,
    OwedWork,
    Port,
    Volume,
    quota_use,
)
from models import Server as ServerRow
from tests.stage import Stage, eventually
from workers.control import control_worker
from workers.host import serve
from workers.machine import Machine, make_machines

# Short, so that a host which does not answer costs a test two seconds; long enough for a busy machine.
TIMEOUTS = TimeoutSettings(
    host_answer=timedelta(seconds=2), vif_plugged=timedelta(seconds=2), stop=timedelta(seconds=2)
)
LIMIT = timedelta(seconds=60)
TINY, NET, DEMO = "tiny", "net", "demo"
MIB = 2**20


@dataclass(frozen=True)
class World:
    """All that operations take and must give back. Two worlds that are equal differ in nothing that could leak."""

    servers: frozenset[tuple[str, str]]
    held_servers: frozenset[str]
    quota: tuple[int, ...]
    allocations: frozenset[tuple[str, str]]
    ports: frozenset[tuple[str, str]]
    volumes: frozenset[tuple[str, str, str | None]]
    block_devices: frozenset[tuple[str, str]]
    owed: frozenset[tuple[str, str]]
    claims: frozenset[tuple[str, str]]
    guests: frozenset[tuple[str, str]]
    formers: frozenset[tuple[str, str]]
    incoming: frozenset[tuple[str, str]]
    images: frozenset[str]
    bound_ports: frozenset[tuple[str, str]]
    volume_files: frozenset[str]
    exports: frozenset[str]
    partial_images: frozenset[str]
    workflows: frozenset[str]

    def besides(self, server_id: str) -> "World":
        """This world without the server's row and without the quota, of which the row is the measure."""
        others = frozenset(one for one in self.servers if one[0] != server_id)
        return replace(self, servers=others, quota=())


@dataclass
class Cloud:
    """One cloud. `alive` are the hosts that the scheduler believes to be up, whatever they are."""

    client: Client
    temporal: temporalio.client.Client
    stage: Stage
    settings: Settings
    database: Database
    machines: list[Machine]
    alive: set[str]
    _control: AsyncExitStack = field(default_factory=AsyncExitStack)
    _hosts: dict[str, AsyncExitStack] = field(default_factory=dict)

    # Its parts.

    def machine(self, name: str) -> Machine:
        """The host of this name."""
        return next(machine for machine in self.machines if machine.name == name)

    @property
    def asking(self) -> Temporal:
        """What activities of the control plane ask with."""
        return Temporal(self.temporal, self.settings.timeouts.host_answer)

    async def start_control(self) -> None:
        """Start the control worker."""
        worker = control_worker(self.temporal, self.settings, self.database, lambda: frozenset(self.alive))
        await self._control.enter_async_context(worker)

    async def stop_control(self) -> None:
        """Stop it, as SIGTERM does."""
        await self._control.aclose()

    async def start_host(self, name: str) -> None:
        """Start a host's worker; returns when it has registered and done what it owed."""
        before = self.registered_at(name)
        await self.start_host_without_waiting(name)
        await eventually(lambda: self.registered_at(name) != before)
        await self.registered(name)

    async def start_host_without_waiting(self, name: str) -> None:
        """Start a host's worker, which then registers by itself."""
        stack = self._hosts[name] = AsyncExitStack()
        await stack.enter_async_context(serve(self.temporal, self.settings, [self.machine(name)]))

    async def registered(self, name: str) -> None:
        """Return when the registration that runs has ended."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            await self.temporal.get_workflow_handle(host_workflow_id(self.machine(name).id)).result()

    async def stop_host(self, name: str) -> None:
        """Stop a host's worker; the scheduler goes on believing that it is up. Its guests stay."""
        await self._hosts.pop(name).aclose()
        machines = await make_machines(self.settings)
        fresh = next(machine for machine in machines if machine.name == name)
        old = self.machine(name)
        volumes = self.volumes_of_sim_1() if old.volumes else None
        self.machines[self.machines.index(old)] = replace(fresh, inventory=old.inventory, volumes=volumes)

    async def close(self) -> None:
        """Stop everything."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            for name in list(self._hosts):
                await self._hosts.pop(name).aclose()
            await self.stop_control()
        self.database.close()
        volumes = self.volumes_of_sim_1()
        for volume in await volumes.exports():
            await volumes.withdraw(volume)
        await volumes.close()

    def volumes_of_sim_1(self) -> LocalVolumes:
        """A driver of the volumes that sim-1 keeps."""
        return LocalVolumes(self.settings.state_dir / "volumes", "127.0.0.1")

    def registered_at(self, name: str) -> datetime | None:
        """When a host registered last."""
        with self.database.read() as session:
            row = session.get(Host, self.machine(name).id)
            return row.registered_at if row else None

    # What tests do with it.

    async def boot(self, name: str = "web", *, networks: Sequence[Any] = (NET,), **options: Any) -> Operation:
        """Begin to build a tiny server on the network, or as the options say."""
        wanted: dict[str, Any] = {"flavor": TINY, "image": DEMO, "networks": networks}
        return await self.client.servers.boot(name, **wanted | options)

    async def booted(self, name: str = "web", **options: Any) -> Server:
        """A server that is up."""
        return await (await self.boot(name, **options)).result(LIMIT)

    async def deleted(self, server_id: str) -> Server:
        """The server, once it is deleted."""
        return await (await self.client.servers.delete(server_id)).result(LIMIT)

    async def failure(self, operation: Operation) -> HostlerError:
        """What the operation failed with."""
        try:
            server = await operation.result(LIMIT)
        except HostlerError as error:
            return error
        raise AssertionError(f"it did not fail: {server}")

    async def progress(self, operation: Operation) -> Progress:
        """The operation's own word on where it stands."""
        handle = self.temporal.get_workflow_handle(f"server:{operation.server_id}", run_id=operation.run_id)
        progress: Progress = await handle.query("progress", result_type=Progress)
        return progress

    async def reached(self, operation: Operation, step: str) -> None:
        """Return when the step has begun."""
        async for progress in operation.follow():
            if any(one.name == step and one.started_at for one in progress.steps):
                return
        raise AssertionError(f"it ended without {step}")

    async def started(self, server_id: str) -> None:
        """Return when Temporal knows of an operation on the server."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            while True:
                with suppress(RPCError):
                    await self.temporal.get_workflow_handle(f"server:{server_id}").describe()
                    return

    async def updated(self, server_id: str, *, times: int) -> None:
        """Return when the server's operation has been asked so many times, whether it has answered or not."""
        handle = self.temporal.get_workflow_handle(f"server:{server_id}")
        accepted = 0
        async with asyncio.timeout(LIMIT.total_seconds()):
            while accepted < times:
                events = [event async for event in handle.fetch_history_events()]
                kinds = [event.WhichOneof("attributes") for event in events]
                accepted = kinds.count("workflow_execution_update_accepted_event_attributes")

    async def noted(self, server_id: str) -> None:
        """Return when the server's history has lines of the operation that still runs."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            while not await self.client.servers.events(server_id):  # noqa: ASYNC110 - it is about the database
                await asyncio.sleep(0.1)

    async def becomes(self, server_id: str, status: str) -> None:
        """Return when the server has this status."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            while (await self.client.servers.show(server_id)).status != status:  # noqa: ASYNC110 - it is about the database
                await asyncio.sleep(0.1)

    def row(self, server_id: str) -> ServerRow | None:
        """The server's row."""
        with self.database.read() as session:
            return session.get(ServerRow, server_id)

    def add(self, *rows: Any) -> None:
        """Put rows into the database."""
        with self.database.write() as session:
            session.add_all(rows)

    # What must not leak.

    async def world(self) -> World:
        """The world now."""
        root = self.settings.state_dir
        with self.database.read() as session:
            hosts = dict(session.exec(select(Host.id, Host.name)).all())
            rows = session.exec(select(ServerRow).where(col(ServerRow.deleted_at).is_(None))).all()
            use = quota_use(session, self.settings.project)
            return World(
                servers=frozenset((row.id, row.vm_state.value) for row in rows),
                held_servers=frozenset(row.id for row in session.exec(select(ServerRow)) if row.operation_id),
                quota=(use.servers, use.vcpus, use.ram_mib, use.volumes, use.volume_gib),
                allocations=frozenset((hosts[one.host_id], one.server_id) for one in session.exec(select(Allocation))),
                ports=frozenset((one.server_id, one.ip) for one in session.exec(select(Port))),
                volumes=frozenset((one.id, one.status.value, one.server_id) for one in session.exec(select(Volume))),
                block_devices=frozenset((one.server_id, one.device) for one in session.exec(select(BlockDevice))),
                owed=frozenset((hosts[one.host_id], one.activity) for one in session.exec(select(OwedWork))),
                claims=_files(root, "claims"),
                guests=_files(root, "guests"),
                formers=_files(root, "former") | _files(root, "claims/former") | _files(root, "offers"),
                incoming=_files(root, "incoming") | _files(root, "arriving"),
                images=frozenset(path.name for path in (root / "images").rglob("*") if path.is_file()),
                bound_ports=frozenset(
                    (machine.name, port.server_id)
                    for machine in self.machines
                    for port in PortRecords(machine.directory / "ports").all()
                ),
                volume_files=frozenset(path.name for path in root.glob("volumes/*") if path.is_file()),
                exports=frozenset(path.stem for path in root.glob("volumes/exports/*.json")),
                partial_images=frozenset(
                    path.name for path in root.glob("simulated/cache/*") if not is_uuid(path.name)
                ),
                workflows=await self._running_workflows(),
            )

    async def _running_workflows(self) -> frozenset[str]:
        """The IDs of the workflows that run, but the watch, which is to. The list lags behind, so each is asked."""
        running = set()
        async for one in self.temporal.list_workflows("ExecutionStatus = 'Running'"):
            described = await self.temporal.get_workflow_handle(one.id, run_id=one.run_id).describe()
            if described.status is WorkflowExecutionStatus.RUNNING and one.id != WATCH_HOSTS:
                running.add(one.id)
        return frozenset(running)


def _files(root: Path, kind: str) -> frozenset[tuple[str, str]]:
    found = root.glob(f"simulated/*/{kind}/*")
    return frozenset((path.relative_to(root).parts[1], path.stem) for path in found if path.is_file())


def refuses(host: str, call: str, *, times: int = 1) -> SimulatedFault:
    """The host refuses the driver's call, for a reason that another host may not share."""
    return SimulatedFault(host=host, call=call, kind="reschedule", message=f"{call} refused by {host}", times=times)


def breaks(host: str, call: str, *, times: int = -1) -> SimulatedFault:
    """The host's driver fails at the call, as a bug would."""
    return SimulatedFault(host=host, call=call, kind="error", message=f"{call} broke on {host}", times=times)


@asynccontextmanager
async def run_cloud(
    address: str,
    namespace: str,
    directory: Path,
    tables: Path,
    disk: Path,
    *,
    hosts: int = 2,
    faults: Iterable[SimulatedFault] = (),
    timeouts: TimeoutSettings = TIMEOUTS,
    operations: OperationSettings | None = None,
    max_attempts: int = 3,
    volumes: bool = False,
    ram_mib: int = 8192,
    encrypted: bool = True,
) -> AsyncIterator[Cloud]:
    """A cloud whose hosts are tried in order: sim-1 has the most memory, then sim-2...

    Args:
        tables: a SQLite file with all tables.
        disk: the image "demo".
        volumes: sim-1 keeps volumes.
        encrypted: all that Temporal keeps.
    """
    shutil.copy(tables, directory / "hostler.db")
    if encrypted:
        write_private(directory / DEFAULT_FILE, f"{Key.generate('test').line}\n")
    settings = Settings(
        state_dir=directory,
        temporal=TemporalSettings(address=address, namespace=namespace),
        scheduler=SchedulerSettings(spread=1, max_attempts=max_attempts),
        timeouts=timeouts,
        operations=operations or OperationSettings(),
        host=HostSettings(
            driver="simulated",
            simulated=SimulatedSettings(hosts=hosts, ram_mib=ram_mib + 1024, faults=list(faults)),
        ),
    )
    stage = Stage()
    temporal = await temporalio.client.Client.connect(
        address, namespace=namespace, data_converter=data_converter(settings), interceptors=[stage]
    )
    machines = [
        replace(machine, inventory=machine.inventory.model_copy(update={"ram_mib": ram_mib - 128 * number}))
        for number, machine in enumerate(await make_machines(settings))
    ]
    cloud = Cloud(
        client=await Client.connect(settings),
        temporal=temporal,
        stage=stage,
        settings=settings,
        database=Database(settings.database_url),
        machines=machines,
        alive={machine.id for machine in machines},
    )
    if volumes:
        machines[0].volumes = cloud.volumes_of_sim_1()
    try:
        _fill_catalogue(cloud, disk)
        await cloud.start_control()
        for machine in machines:
            await cloud.start_host(machine.name)
        yield cloud
    finally:
        await cloud.close()


def _fill_catalogue(cloud: Cloud, disk: Path) -> None:
    image_id = str(uuid4())
    store = LocalImageStore(cloud.settings.images_dir)
    stored = store.add(image_id, disk, DiskFormat.QCOW2, None, lambda done, total: None)
    image = {"disk_format": DiskFormat.QCOW2, "status": ImageStatus.ACTIVE, **stored.model_dump()}
    cloud.add(
        Flavor(id=str(uuid4()), name=TINY, vcpus=1, ram_mib=128, disk_gib=1),
        Flavor(id=str(uuid4()), name="huge", vcpus=1, ram_mib=16 * 1024, disk_gib=1),
        Network(id=str(uuid4()), name=NET, cidr="10.0.0.0/24", gateway="10.0.0.1"),
        Image(id=image_id, name=DEMO, **image),
    )
