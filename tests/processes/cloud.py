"""A cloud of child processes, wired as in production, each of which may be killed and started again.

A Temporal server on a file, control workers, host workers with simulated hosts, SQLite or a PostgreSQL cluster. The
test is an operator outside: it has the client, the database and the hosts' files, and none of the workers' objects.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import temporalio.client
from pydantic import SecretStr
from sqlmodel import select
from temporalio.contrib.pydantic import pydantic_data_converter

import models
from hostler import Client
from hostler.client import Operation
from hostler.contract.servers import Server
from hostler.settings import DatabaseSettings, HostSettings, Settings, SimulatedSettings, TemporalSettings
from tests import cloud as in_one_process
from tests.cloud import DEMO, NET, TINY, World
from tests.conftest import free_port
from tests.processes.postgres import Postgres, run_postgres
from tests.processes.process import Process
from tests.stage import Stage
from workers import dev, temporal_server
from workers.machine import Machine, make_machines

LIMIT = timedelta(seconds=120)
HEARTBEAT_S = 1
# Longer than a killed worker takes to be back: what these tests are about is not a host that stays away.
PATIENCE = {"HOSTLER_TIMEOUTS__HOST_ANSWER": "15", "HOSTLER_TIMEOUTS__VIF_PLUGGED": "30"}


@dataclass
class ProcessCloud:
    """One cloud. The order of `hosts` is that of the host workers; each may be several hosts."""

    directory: Path
    settings: Settings
    temporal: Process
    controls: list[Process]
    hosts: list[Process]
    postgres: Postgres | None
    client: Client
    temporal_client: temporalio.client.Client
    database: models.Database
    simulated: list[SimulatedSettings]
    common: Mapping[str, str]

    @property
    def processes(self) -> list[Process]:
        """Everything that can be killed."""
        return [self.temporal, *self.controls, *self.hosts, *([self.postgres.process] if self.postgres else [])]

    def start_temporal(self) -> None:
        """Start Temporal again; does not wait until it answers."""
        self.temporal.start()

    def add_host(self, name: str, environment: Mapping[str, str]) -> Process:
        """Start one more host worker, with these settings over the common ones."""
        process = Process(
            name, dev.hostler("worker", "host"), self.directory / f"{name}.log", {**self.common, **environment}
        )
        process.start()
        self.hosts.append(process)
        return process

    async def boot(self, name: str = "web", **options: Any) -> Operation:
        """Begin to build a tiny server on the network, or as the options say."""
        wanted: dict[str, Any] = {"flavor": TINY, "image": DEMO, "networks": [NET]}
        return await self.client.servers.boot(name, **wanted | options)

    async def booted(self, name: str = "web", **options: Any) -> Server:
        """A server that is up."""
        return await (await self.boot(name, **options)).result(LIMIT)

    async def deleted(self, server_id: str) -> Server:
        """The server, once it is deleted."""
        return await (await self.client.servers.delete(server_id)).result(LIMIT)

    async def reached(self, operation: Operation, step: str) -> None:
        """Return when the step has begun."""
        async with asyncio.timeout(LIMIT.total_seconds()):
            async for progress in operation.follow():
                if any(one.name == step and one.started_at for one in progress.steps):
                    return
        raise AssertionError(f"it ended without {step}")

    async def world(self) -> World:
        """The world now, as the tests in one process see it: rows, files, workflows."""
        onlooker = in_one_process.Cloud(
            client=self.client,
            temporal=self.temporal_client,
            stage=Stage(),
            settings=self.settings,
            database=self.database,
            machines=await self.machines(),
            alive=set(),
        )
        return await onlooker.world()

    async def settled(self, limit: timedelta = LIMIT) -> World:
        """The world, once no workflow runs and no host owes anything.

        Raises:
            AssertionError: that does not come to be.
        """
        world = await self.world()
        deadline = asyncio.get_running_loop().time() + limit.total_seconds()
        while world.workflows or world.owed or world.held_servers:
            still = {"workflows": world.workflows, "owed": world.owed, "held": world.held_servers}
            assert asyncio.get_running_loop().time() < deadline, f"it does not settle: {still}"
            await asyncio.sleep(0.2)
            world = await self.world()
        return world

    async def machines(self) -> list[Machine]:
        """The hosts as their files show them. To look at: their workers are others' processes."""
        found = []
        for simulated in self.simulated:
            host = self.settings.host.model_copy(update={"simulated": simulated})
            found += await make_machines(self.settings.model_copy(update={"host": host}))
        return found

    def rows(self, table: type[Any]) -> list[Any]:
        """All rows of a table."""
        with self.database.read() as session:
            return list(session.exec(select(table)).all())

    def logs(self) -> str:
        """The end of what every process said."""
        return "\n".join(f"--- {process.name}\n{process.end_of_log()}" for process in self.processes)


@asynccontextmanager
async def process_cloud(
    directory: Path,
    *,
    hosts: Sequence[int] = (2,),
    controls: int = 1,
    postgres: bool = False,
    simulated: SimulatedSettings | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ProcessCloud]:
    """A cloud that is ready, with a catalogue.

    Args:
        directory: all that it writes.
        hosts: the number of simulated hosts in each host worker.
        simulated: what these are like.
        environment: more settings of the workers.
    """
    state = directory / "state"
    state.mkdir(parents=True)
    cluster = run_postgres(directory / "postgres.log") if postgres else nullcontext()
    with cluster as running:
        settings = _settings(state, running.url if running else None, simulated or SimulatedSettings())
        database = models.Database(settings.database_url)
        models.upgrade(database)
        command = temporal_server.command(temporal_server.find_binary(), settings.temporal, directory / "temporal.db")
        temporal = Process("temporal", command, directory / "temporal.log")
        common = _environment(settings) | PATIENCE | dict(environment or {})
        secret = {"HOSTLER_DATABASE__URL": running.url} if running else {}
        kinds = [
            settings.host.simulated.model_copy(update={"hosts": count, "name_prefix": f"sim-{number}-"})
            for number, count in enumerate(hosts, start=1)
        ]
        control_workers = [
            Process(
                f"control-{number}",
                dev.hostler("worker", "control"),
                directory / f"control-{number}.log",
                common | secret,
            )
            for number in range(1, controls + 1)
        ]
        host_workers = [
            Process(
                f"host-{number}",
                dev.hostler("worker", "host"),
                directory / f"host-{number}.log",
                common | {"HOSTLER_HOST__DRIVER": "simulated", "HOSTLER_HOST__SIMULATED": kind.model_dump_json()},
            )
            for number, kind in enumerate(kinds, start=1)
        ]
        temporal.start()
        try:
            for process in (*control_workers, *host_workers):
                process.start()
            await temporal_server.wait_ready(settings.temporal)
            async with asyncio.timeout(LIMIT.total_seconds()), await Client.connect(settings) as client:
                cloud = ProcessCloud(
                    directory=directory,
                    settings=settings,
                    temporal=temporal,
                    controls=control_workers,
                    hosts=host_workers,
                    postgres=running,
                    client=client,
                    temporal_client=await _temporal(settings),
                    database=database,
                    simulated=kinds,
                    common=common,
                )
                await _ready(cloud, sum(hosts))
                await _fill_catalogue(cloud)
            yield cloud
        finally:
            for process in (*control_workers, *host_workers, temporal):
                process.kill()
            database.close()


def _settings(state: Path, url: str | None, simulated: SimulatedSettings) -> Settings:
    return Settings(
        state_dir=state,
        temporal=TemporalSettings(
            address=f"127.0.0.1:{free_port()}",
            ui_url=f"http://127.0.0.1:{free_port()}",
            heartbeat_interval=timedelta(seconds=HEARTBEAT_S),
        ),
        database=DatabaseSettings(url=SecretStr(url) if url else None),
        host=HostSettings(driver="simulated", simulated=simulated),
    )


def _environment(settings: Settings) -> dict[str, str]:
    return dev.environment(settings, None) | {
        "HOSTLER_TEMPORAL__UI_URL": settings.temporal.ui_url,
        "HOSTLER_TEMPORAL__HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
        # It would run at full tens of minutes, and heal what a test is just about to look at.
        "HOSTLER_AUDIT__INTERVAL": "0",
    }


async def _temporal(settings: Settings) -> temporalio.client.Client:
    return await temporalio.client.Client.connect(
        settings.temporal.address, namespace=settings.temporal.namespace, data_converter=pydantic_data_converter
    )


async def _ready(cloud: ProcessCloud, hosts: int) -> None:
    """Return when so many hosts are up."""
    up = asyncio.create_task(dev.hosts_up(cloud.settings, hosts))
    try:
        while not up.done():
            assert all(process.running for process in cloud.processes), cloud.logs()
            await asyncio.wait({up}, timeout=0.5)
        await up
    finally:
        up.cancel()


async def _fill_catalogue(cloud: ProcessCloud) -> None:
    disk = cloud.directory / "disk.qcow2"
    await asyncio.to_thread(subprocess.run, ["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    await cloud.client.quotas.set(servers=-1, vcpus=-1, ram_mib=-1, volumes=-1, volume_gib=-1)
    await cloud.client.flavors.create(TINY, vcpus=1, ram_mib=128, disk_gib=1)
    await cloud.client.networks.create(NET, cidr="10.231.0.0/16")
    await cloud.client.images.create(DEMO, disk)
