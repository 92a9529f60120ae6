"""Where cases happen: a control worker and some hosts, each a process of its own, on a Temporal namespace of their own.

The sites differ in their hosts alone. `simulated` has three, of which the last keeps the volumes.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import temporalio.client
from sqlmodel import select
from temporalio.client import ActivityExecutionStatus, WorkflowExecutionStatus

from drivers.image.local import LocalImageStore
from hostler import temporal
from hostler.client import Client
from hostler.client.connection import Connection
from hostler.contract.names import HOST_QUEUE_PREFIX
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.settings import (
    AuditSettings,
    HostFailureSettings,
    HostSettings,
    OperationSettings,
    SchedulerSettings,
    Settings,
    SimulatedSettings,
    TemporalSettings,
    TimeoutSettings,
)
from models import Database, Flavor, Host, Image, KeyPair, Network, OwedWork, Quota
from tests.conftest import make_namespace
from tests.faults import operations
from tests.faults.plan import Book
from tests.faults.process import BEAT, Worker
from tests.faults.servers import TemporalServers
from tests.faults.world import OWED, UNDER_WAY, Roles, World, look

LIMIT = timedelta(seconds=120)
POLL_SECONDS = 0.3  # each look takes the machine some milliseconds
WATCH_SECONDS = 0.1
JOBS = 8
TIMEOUTS = TimeoutSettings(
    host_answer=timedelta(seconds=60), vif_plugged=timedelta(seconds=60), stop=timedelta(seconds=1)
)
SWITCH_OFF = r"""find "$0/$1" -path '*/guests/*.json' -exec sed -i 's/"running"/"shutdown"/' {} +"""
"""A shell's script that cuts the power of a simulated host, guests and all, by the cell's directory and its name."""
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBnpsIvMRkxmYT8JfSrGzPVTBpFzbPQhLhTbdrzcBUSz matrix"


class NotQuiet(Exception):
    """Something still goes on where all should have come to its end."""


@dataclass(frozen=True)
class HostPlan:
    """A host of a site."""

    name: str
    settings: HostSettings


def simulated_hosts() -> list[HostPlan]:
    """Two hosts for servers, tried in this order, and one that keeps the volumes."""
    return [simulated_host("first", 8192), simulated_host("second", 6144), simulated_host("third", 4096, volumes=True)]


def simulated_host(prefix: str, ram_mib: int, *, volumes: bool = False) -> HostPlan:
    """A host that exists only as numbers."""
    simulated = SimulatedSettings(hosts=1, name_prefix=f"{prefix}-", ram_mib=ram_mib, volumes=volumes)
    return HostPlan(f"{prefix}-1", HostSettings(driver="simulated", simulated=simulated))


@dataclass(frozen=True)
class Site:
    """What all cases of one kind of site share. `look` adds what is seen of the machine itself.

    `template` has the database with all tables that every case starts with.

    `unique` gives each case identifiers of its own, `defect` breaks the product in every worker, `without` are the
    workflows that cannot be carried out there.
    """

    name: str
    servers: TemporalServers
    template: Path
    disk: Path
    hosts: Callable[[], list[HostPlan]] = simulated_hosts
    subnets: Callable[[int], tuple[str, str]] = lambda slot: ("10.11.0.0/24", "10.12.0.0/24")
    look: Callable[["Cell", World, Roles], Awaitable[None]] | None = None
    sweep: Callable[["Cell"], Awaitable[None]] | None = None
    unique: bool = False
    settings: OperationSettings = field(default_factory=OperationSettings)
    without: frozenset[str] = frozenset()
    jobs: int = JOBS
    defect: Callable[[], None] | None = None


@dataclass
class Cell:
    """The cloud of one case."""

    site: Site
    directory: Path
    settings: Settings
    database: Database
    client: Client
    connection: Connection
    scene: operations.Scene
    book: Book
    controls: list[Worker]
    hosts: dict[str, Worker]
    roles: Roles = field(default_factory=Roles)
    dead: set[str] = field(default_factory=set)
    _watching: "asyncio.Task[None] | None" = None
    deaths: list[str] = field(default_factory=list)
    by_name: bool = False
    """Whether it has several servers, and all go by their names."""

    @property
    def temporal(self) -> temporalio.client.Client:
        """The connection to Temporal."""
        return self.connection.temporal

    @property
    def workers(self) -> list[Worker]:
        """All processes that there are."""
        return [*self.controls, *self.hosts.values()]

    @property
    def subject(self) -> str:
        """The UUID of the server that is looked at, if it is one."""
        return "" if self.by_name else self.scene.server_id

    def host_ids(self) -> dict[str, str]:
        """The hosts' names, by UUID."""
        with self.database.read() as session:
            return dict(session.exec(select(Host.id, Host.name)).all())

    async def start(self) -> None:
        """Start all processes but further control workers; returns when every host takes servers."""
        for worker in (self.controls[0], *self.hosts.values()):
            worker.start()
        await self.until(self.registered, "the hosts to register")
        await self.until_up(*self.hosts)

    def stand_by(self) -> None:
        """Start the further control workers: not before, for each notices by itself which hosts have come and gone."""
        for worker in self.controls[1:]:
            worker.start()

    def registered(self) -> bool:
        """Whether all hosts are known.

        Raises:
            NotQuiet: a worker has ended.
        """
        if ended := [worker.name for worker in self.workers if worker.starts and not worker.alive]:
            raise NotQuiet(f"{', '.join(ended)} did not start")
        return len(self.host_ids()) == len(self.hosts)

    async def until_up(self, *names: str) -> None:
        """Return when these hosts are up."""

        async def up() -> bool:
            shown = {host.name for host in await self.client.hosts.list() if host.up}
            return shown >= set(names)

        await self.until(up, f"hosts {', '.join(names)} to be up")

    async def until_down(self, name: str) -> None:
        """Return when this host is known to be down."""

        async def down() -> bool:
            return not (await self.client.hosts.show(name)).up

        await self.until(down, f"host {name} to be down")

    async def until(self, condition: Callable[[], Any], what: str, limit: timedelta = LIMIT) -> None:
        """Return when the condition holds.

        Raises:
            NotQuiet: it does not.
        """
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while True:
                    held = condition()
                    if await held if isinstance(held, Awaitable) else held:
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise NotQuiet(f"waited {limit.total_seconds():g} s in vain for {what}") from None

    def watch(self, *, restart: bool) -> None:
        """From here on restart whoever is killed, or leave him dead."""
        self._watching = asyncio.create_task(self._watch(restart))

    async def _watch(self, restart: bool) -> None:
        while True:
            for worker in self.workers:
                if worker.starts and not worker.alive and worker.name not in self.dead:
                    self.deaths.append(worker.name)
                    if restart:
                        worker.start()
                    else:
                        self.dead.add(worker.name)
            await asyncio.sleep(WATCH_SECONDS)

    def revive(self) -> None:
        """Start those hosts again that are dead."""
        self.book.come_back()
        for name in list(self.dead):
            if name in self.hosts:
                self.hosts[name].start()
                self.dead.discard(name)

    async def switch_off(self, name: str) -> None:
        """Cut the power of a simulated host, as the fence command does. Its worker is dead already."""
        command = self.settings.host_failure.fence_command
        assert command is not None
        await asyncio.to_thread(subprocess.run, [*command, name], check=True)

    async def quiet(self, *, owing: bool = False) -> None:
        """Return when nothing goes on any more: no workflow, no late effect, and (unless `owing`) no owed work.

        Raises:
            NotQuiet: it does not come to that.
        """
        reasons: list[str] = []

        async def still() -> bool:
            reasons[:] = await self._unrest(owing)
            return not reasons

        try:
            await self.until(still, "quiet")
        except NotQuiet:
            raise NotQuiet("still going on: " + "; ".join(reasons)) from None

    async def _unrest(self, owing: bool) -> list[str]:
        """What goes on; Temporal is asked only when nothing else does."""
        struck = self.book.struck()
        plan = self.book.plan()
        done = {one.number for one in struck if one.done}
        late = [one for one in struck if plan and plan.strikes[one.number].fault == "late" and one.number not in done]
        found = [f"the late effect of {one.activity}" for one in late]
        with self.database.read() as session:
            hosts = session.exec(select(Host)).all()
            late_hosts = [one.name for one in hosts if one.registered_at < self.hosts[one.name].started_at]
            found += [f"the registration of {name}" for name in late_hosts]
            if not owing:  # after the hosts: who has registered owes an account
                found += [f"{OWED}: {one.activity}" for one in session.exec(select(OwedWork))]
        return found or [what for what, _ in [*await self.running(), *await self.calls()]]

    async def running(self) -> list[tuple[str, str]]:
        """The workflows that run, with the UUID that is in their ID. Temporal's list lags behind: each is asked."""
        found = []
        async for one in self.temporal.list_workflows("ExecutionStatus = 'Running'"):
            described = await self.temporal.get_workflow_handle(one.id, run_id=one.run_id).describe()
            if described.status is WorkflowExecutionStatus.RUNNING:
                found.append((f"workflow {one.workflow_type}", one.id.partition(":")[2]))
        return found

    async def calls(self) -> list[tuple[str, str]]:
        """The activities without a workflow that run, with the UUID of the host that they were asked of."""
        found = []
        async for one in self.temporal.list_activities("ExecutionStatus = 'Running'"):
            described = await self.temporal.get_activity_handle(one.activity_id, run_id=one.activity_run_id).describe()
            if described.status is ActivityExecutionStatus.RUNNING:
                found.append((f"activity {one.activity_type}", one.task_queue.removeprefix(HOST_QUEUE_PREFIX)))
        return found

    async def look(self) -> World:
        """The world now."""
        directories = {name: self.directory / name for name in self.hosts}
        store, project = self.settings.images_dir, self.settings.project
        world, roles = await asyncio.to_thread(
            look, self.database, self.subject, directories, store, project, self.roles
        )
        hosts = self.host_ids()
        for what, on in [*await self.running(), *await self.calls()]:
            world.sections.setdefault(f"{roles(hosts[on])}: {UNDER_WAY}" if on in hosts else UNDER_WAY, []).append(what)
        if self.site.look is not None:
            await self.site.look(self, world, roles)
        return World({where: lines for where, lines in world.sections.items() if lines}, world.server)

    async def close(self) -> None:
        """Kill all that runs."""
        if self._watching is not None:
            self._watching.cancel()
        for worker in self.workers:
            worker.kill()
        if self.site.sweep is not None:
            await self.site.sweep(self)
        self.database.close()


@asynccontextmanager
async def open_cell(site: Site, directory: Path, slot: int, *, controls: int = 1) -> AsyncIterator[Cell]:
    """A cloud for one case, in `directory`. `slot` tells those apart that are open at once."""
    async with site.servers.lease() as address:
        cell = await _make_cell(site, address, directory, slot, controls)
        try:
            await cell.start()
            yield cell
        finally:
            await cell.close()


async def _make_cell(site: Site, address: str, directory: Path, slot: int, controls: int) -> Cell:
    namespace = await make_namespace(address)
    plans = {plan.name: plan for plan in site.hosts()}
    _make_directories(site, directory, plans)
    shared: dict[str, Any] = {
        "images": directory / "images",
        "temporal": TemporalSettings(address=address, namespace=namespace, heartbeat_interval=BEAT),
        "scheduler": SchedulerSettings(spread=1),
        "timeouts": TIMEOUTS,
        "audit": AuditSettings(interval=timedelta(0)),
        "host_failure": HostFailureSettings(
            interval=timedelta(0), evacuate=True, fence_command=["sh", "-c", SWITCH_OFF, str(directory)]
        ),
        "operations": site.settings,
    }
    settings = Settings(state_dir=directory, **shared)
    scene = operations.Scene(namespace if site.unique else site.name, str(site.disk))
    database = Database(settings.database_url)
    _fill(database, settings, scene, site.disk, site.subnets(slot))
    connection = Connection(await temporal.connect(settings), settings, settings.project)
    return Cell(
        site=site,
        directory=directory,
        settings=settings,
        database=database,
        client=Client(connection),
        connection=connection,
        scene=scene,
        book=Book(directory),
        controls=[
            Worker(f"control-{number}", "control", settings, directory, site.defect)
            for number in range(1, controls + 1)
        ],
        hosts={
            name: Worker(
                name, "host", Settings(state_dir=directory / name, host=plan.settings, **shared), directory, site.defect
            )
            for name, plan in plans.items()
        },
    )


def _make_directories(site: Site, directory: Path, hosts: Iterable[str]) -> None:
    directory.mkdir(mode=0o755, parents=True)
    shutil.copy(site.template / "hostler.db", directory / "hostler.db")
    for name in hosts:
        (directory / name).mkdir(mode=0o755)


def _fill(
    database: Database, settings: Settings, scene: operations.Scene, disk: Path, subnets: tuple[str, str]
) -> None:
    """The catalogue."""
    store = LocalImageStore(settings.images_dir)
    stored = store.add(scene.id("image"), disk, DiskFormat.QCOW2, None, lambda done, total: None)
    image = {"disk_format": DiskFormat.QCOW2, "status": ImageStatus.ACTIVE, **stored.model_dump()}
    with database.write() as session:
        session.add(Quota(project=settings.project))
        session.add(Flavor(id=scene.id("flavor"), name=operations.FLAVOR, vcpus=1, ram_mib=96, disk_gib=1))
        session.add(Flavor(id=scene.id("larger"), name=operations.LARGER, vcpus=2, ram_mib=128, disk_gib=2))
        session.add(Image(id=scene.id("image"), name=operations.IMAGE, **image))
        session.add(
            KeyPair(name=operations.KEY, project=settings.project, public_key=PUBLIC_KEY, fingerprint="of the matrix")
        )
        for vni, (name, cidr) in enumerate(zip(operations.NETWORKS, subnets, strict=True), start=1):
            gateway = cidr.replace(".0/24", ".1")
            session.add(Network(id=scene.id(name), name=name, cidr=cidr, gateway=gateway, vni=vni))
