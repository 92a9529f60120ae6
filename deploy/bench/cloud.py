"""A cloud to measure, in one process: a real Temporal server on a file, a control worker, a host or more."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import temporalio.client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.testing import WorkflowEnvironment

from deploy.bench.baseline import Baseline, nothing
from hostler import Client
from hostler.codec import data_converter
from hostler.contract.names import SEARCH_ATTRIBUTES
from hostler.encryption import DEFAULT_FILE, Key
from hostler.private_files import write_private
from hostler.settings import HostSettings, Settings, SimulatedSettings, TemporalSettings
from models import Database, upgrade
from workers.control import control_worker
from workers.host import serve
from workers.liveness import Liveness
from workers.machine import Machine, make_machines
from workers.temporal_server import DYNAMIC_CONFIG, SQLITE_PRAGMAS, find_binary

Driver = Literal["simulated", "libvirt"]

BEAT = timedelta(seconds=1)
NAME = "bench"


class MeasuredMachine(Machine):
    """A host that serves the baseline's activities, too."""

    def activities(self) -> list[Callable[..., Any]]:
        """Those of a host, and the one that does nothing."""
        return [*super().activities(), nothing]


@dataclass
class Cloud:
    """The ways in, and the UUID of the first host."""

    client: Client
    temporal: temporalio.client.Client
    host_id: str
    hosts: dict[str, AsyncExitStack]

    async def boot(self, host: str | None = None) -> str:
        """Boot a server and wait until it is ACTIVE; its UUID."""
        operation = await self.client.servers.boot(f"b-{uuid4()}", flavor=NAME, image=NAME, networks=[NAME], host=host)
        return (await operation.result()).id

    async def silence(self, host: str) -> None:
        """Stop a host's worker, and return when the cloud has noticed."""
        await self.hosts.pop(host).aclose()
        while (await self.client.hosts.show(host)).up:  # noqa: ASYNC110 - it is Temporal that knows
            await asyncio.sleep(BEAT.total_seconds() / 4)


@asynccontextmanager
async def cloud(driver: Driver = "simulated", image: Path | None = None, hosts: int = 1) -> AsyncIterator[Cloud]:
    """A cloud with a catalogue; a simulated host has room for thousands of servers. None is a blank image."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/var/tmp") as name:
        await asyncio.to_thread(Path(name).chmod, 0o755)  # QEMU and dnsmasq run as users of their own
        write_private(Path(name) / DEFAULT_FILE, f"{Key.generate(NAME).line}\n")  # encrypted, as a cloud should be
        async with (
            await _temporal(Path(name)) as temporal,
            _workers(temporal.client, Path(name), driver, hosts) as running,
        ):
            await _fill(running.client, image or await _blank(Path(name)), hosts)
            yield running


async def _temporal(directory: Path) -> WorkflowEnvironment:
    flags = [word for key, value in DYNAMIC_CONFIG.items() for word in ("--dynamic-config-value", f"{key}={value}")]
    flags += [word for key, value in SQLITE_PRAGMAS.items() for word in ("--sqlite-pragma", f"{key}={value}")]
    return await WorkflowEnvironment.start_local(
        data_converter=data_converter(Settings(state_dir=directory)),
        runtime=Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=BEAT),
        dev_server_existing_path=str(find_binary()),
        dev_server_database_filename=str(directory / "temporal.db"),
        dev_server_extra_args=flags,
        dev_server_log_level="error",
        search_attributes=SEARCH_ATTRIBUTES,
    )


@asynccontextmanager
async def _workers(
    temporal: temporalio.client.Client, directory: Path, driver: Driver, hosts: int
) -> AsyncIterator[Cloud]:
    settings = Settings(
        state_dir=directory,
        temporal=TemporalSettings(address=temporal.service_client.config.target_host, heartbeat_interval=BEAT),
        host=HostSettings(
            driver=driver,
            simulated=SimulatedSettings(hosts=hosts, vcpus=10_000, ram_mib=10_000_000, disk_gib=1_000_000),
        ),
    )
    database = Database(settings.database_url)
    upgrade(database)
    machines: list[Machine] = [MeasuredMachine(**vars(machine)) for machine in await make_machines(settings)]
    async with (
        Liveness(temporal, BEAT) as liveness,
        control_worker(temporal, settings, database, liveness.alive, [Baseline], [nothing]),
        AsyncExitStack() as all_hosts,
        await Client.connect(settings) as client,
    ):
        serving = {}
        for machine in machines:
            serving[machine.name] = await all_hosts.enter_async_context(AsyncExitStack())
            await serving[machine.name].enter_async_context(serve(temporal, settings, [machine]))
        yield Cloud(client, temporal, machines[0].id, serving)
    database.close()


async def _blank(directory: Path) -> Path:
    image = directory / "blank.qcow2"
    await asyncio.to_thread(subprocess.run, ["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"], check=True)
    return image


async def _fill(client: Client, image: Path, hosts: int) -> None:
    await client.quotas.set(servers=-1, vcpus=-1, ram_mib=-1)
    await client.flavors.create(NAME, vcpus=1, ram_mib=128, disk_gib=1)
    await client.networks.create(NAME, cidr="10.231.0.0/16")
    await client.images.create(NAME, image)
    while sum(host.up for host in await client.hosts.list()) < hosts:  # noqa: ASYNC110 - it is Temporal that knows
        await asyncio.sleep(BEAT.total_seconds() / 4)
