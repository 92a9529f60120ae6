"""One operation of every kind in flight at once, each at its host's step; and the proof that all of them landed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

from hostler.client import Operation
from hostler.contract.errors import InvalidState, NoValidHost, Unavailable
from hostler.contract.resources import Volume
from hostler.contract.servers import NEVER, OperationName, Server
from hostler.contract.states import PowerState
from hostler.settings import SimulatedSettings
from tests.cloud import World
from tests.processes.cloud import LIMIT, ProcessCloud
from tests.processes.process import Process
from tests.soak.repertoire import server_operations
from workers import dev

T = TypeVar("T")

LONG = timedelta(seconds=2)
SLOW_CALLS = (
    *("spawn", "start", "stop", "reset", "destroy", "create"),
    *("snapshot", "receive_disks", "bring_back", "drop_former", "migrate"),
)
SLOW_HOSTS = SimulatedSettings(volumes=True, latency=dict.fromkeys(SLOW_CALLS, LONG))
"""Hosts that take their time for each operation's main step, so that it can be met there."""
MAIN_STEP: Mapping[OperationName, str] = {
    OperationName.BOOT: "spawn",
    OperationName.START: "start_guest",
    OperationName.STOP: "stop_guest",
    OperationName.REBOOT: "reboot_guest",
    OperationName.SNAPSHOT: "snapshot_guest",
    OperationName.BACKUP: "snapshot_guest",
    OperationName.REBUILD: "spawn",
    OperationName.SHELVE: "snapshot_guest",
    OperationName.SHELVE_OFFLOAD: "destroy_guest",
    OperationName.UNSHELVE: "spawn",
    OperationName.RESIZE: "receive_disks",
    OperationName.MIGRATE: "receive_disks",
    OperationName.LIVE_MIGRATE: "migrate_guest",
    OperationName.EVACUATE: "spawn",
    OperationName.CONFIRM_RESIZE: "drop_former_guest",
    OperationName.REVERT_RESIZE: "bring_back_guest",
    OperationName.DELETE: "destroy_guest",
}
STATUS: Mapping[OperationName, str] = {
    OperationName.BOOT: "ACTIVE",
    OperationName.START: "ACTIVE",
    OperationName.STOP: "SHUTOFF",
    OperationName.REBOOT: "ACTIVE",
    OperationName.SNAPSHOT: "ACTIVE",
    OperationName.BACKUP: "ACTIVE",
    OperationName.REBUILD: "ACTIVE",
    OperationName.SHELVE: "SHELVED_OFFLOADED",
    OperationName.SHELVE_OFFLOAD: "SHELVED_OFFLOADED",
    OperationName.UNSHELVE: "ACTIVE",
    OperationName.RESIZE: "VERIFY_RESIZE",
    OperationName.MIGRATE: "VERIFY_RESIZE",
    OperationName.LIVE_MIGRATE: "ACTIVE",
    OperationName.EVACUATE: "ACTIVE",
    OperationName.CONFIRM_RESIZE: "ACTIVE",
    OperationName.REVERT_RESIZE: "ACTIVE",
    OperationName.DELETE: "DELETED",
}
LARGER = "larger"
LOST = "sim-lost-1"
"""A host that is off meanwhile."""


@dataclass
class Flight:
    """Operations that run, on a server each, and a volume that is being made; the world as it was before them.

    `lost` is the worker of a host that comes back at the end.
    """

    cloud: ProcessCloud
    lost: Process
    before: World
    operations: dict[OperationName, Operation]
    volume: "asyncio.Task[Volume]"

    @classmethod
    async def take_off(cls, cloud: ProcessCloud) -> "Flight":
        """Ask for one of each, and return when each is at its main step."""
        assert MAIN_STEP.keys() == server_operations(), "an operation that this does not know"
        before = await cloud.settled()
        await cloud.client.flavors.create(LARGER, vcpus=2, ram_mib=256, disk_gib=2)
        servers = cloud.client.servers
        made_here = (OperationName.BOOT, OperationName.EVACUATE)
        names = [name for name in OperationName if name in MAIN_STEP and name not in made_here]
        booted = await asyncio.gather(*(cloud.booted(f"web-{name}") for name in names))
        of = {name: server.id for name, server in zip(names, booted, strict=True)}
        lost, of[OperationName.EVACUATE] = await lose_a_host(cloud)
        ready = await asyncio.gather(
            servers.stop(of[OperationName.START]),
            servers.shelve(of[OperationName.SHELVE_OFFLOAD], offload_after=NEVER),
            servers.shelve(of[OperationName.UNSHELVE]),
            servers.migrate(of[OperationName.CONFIRM_RESIZE]),
            servers.migrate(of[OperationName.REVERT_RESIZE]),
        )
        await asyncio.gather(*(one.result(LIMIT) for one in ready))
        asked = await asyncio.gather(
            cloud.boot("new"),
            servers.start(of[OperationName.START]),
            servers.stop(of[OperationName.STOP]),
            servers.reboot(of[OperationName.REBOOT], hard=True),
            servers.snapshot(of[OperationName.SNAPSHOT], "saved"),
            servers.backup(of[OperationName.BACKUP], "kept", backup_type="daily", rotation=1),
            servers.rebuild(of[OperationName.REBUILD]),
            servers.shelve(of[OperationName.SHELVE]),
            servers.shelve_offload(of[OperationName.SHELVE_OFFLOAD]),
            servers.unshelve(of[OperationName.UNSHELVE]),
            servers.resize(of[OperationName.RESIZE], LARGER),
            servers.migrate(of[OperationName.MIGRATE]),
            servers.live_migrate(of[OperationName.LIVE_MIGRATE]),
            servers.evacuate(of[OperationName.EVACUATE]),
            servers.confirm_resize(of[OperationName.CONFIRM_RESIZE]),
            servers.revert_resize(of[OperationName.REVERT_RESIZE]),
            servers.delete(of[OperationName.DELETE]),
        )
        operations = {operation.operation: operation for operation in asked}
        volume_id = str(uuid4())
        volume = asyncio.create_task(
            persistently(lambda: cloud.client.volumes.create(size_gib=1, volume_id=volume_id)), name="volume"
        )
        await asyncio.gather(*(cloud.reached(one, MAIN_STEP[name]) for name, one in operations.items()))
        return cls(cloud, lost, before, operations, volume)

    async def land(self) -> None:
        """See that each ended as asked; then take all away, and see that nothing is left."""
        operations = self.operations
        async with asyncio.timeout(2 * LIMIT.total_seconds()):
            ended = await asyncio.gather(*(persistently(one.result) for one in operations.values()))
            made = await self.volume
        assert {name: server.status for name, server in zip(operations, ended, strict=True)} == STATUS
        assert made.status == "available"
        self.lost.start()
        left = [one.server_id for name, one in operations.items() if name is not OperationName.DELETE]
        await asyncio.gather(*map(self.cloud.deleted, left))
        await persistently(lambda: self.cloud.client.volumes.delete(made.id))
        for image in [one.image_id for one in operations.values() if one.image_id is not None]:
            await persistently(lambda image=image: self.cloud.client.images.delete(image))  # type: ignore[misc]  # it is bound
        assert await self.cloud.settled() == self.before
        for machine in await self.cloud.machines():
            assert machine.volumes is not None
            assert await machine.volumes.volumes() == []


async def lose_a_host(cloud: ProcessCloud) -> tuple[Process, str]:
    """One more host, whose power fails when it has a server: its worker, and the server's UUID."""
    hosts = len(await cloud.client.hosts.list())
    kind = SLOW_HOSTS.model_copy(update={"hosts": 1, "name_prefix": LOST.removesuffix("1")})
    cloud.simulated.append(kind)
    simulated = {"HOSTLER_HOST__DRIVER": "simulated", "HOSTLER_HOST__SIMULATED": kind.model_dump_json()}
    process = cloud.add_host("host-lost", simulated)
    await dev.hosts_up(cloud.settings, hosts + 1)
    server = await booted_on_lost(cloud)
    process.kill()
    for file in cloud.settings.state_dir.glob(f"simulated/{LOST}/guests/*.json"):
        file.write_text(file.read_text().replace(f'"{PowerState.RUNNING}"', f'"{PowerState.SHUTDOWN}"'))
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            with suppress(InvalidState):  # whoever answers may not have noticed yet
                await cloud.client.hosts.declare_down(LOST, "its power failed")
                return process, server.id
            await asyncio.sleep(0.2)


async def booted_on_lost(cloud: ProcessCloud) -> Server:
    """A server there. Of several control workers one may not have heard of the new host yet."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            with suppress(NoValidHost):
                return await cloud.booted(f"web-{OperationName.EVACUATE}", host=LOST)
            for failed in await cloud.client.servers.list():
                if failed.status == "ERROR":
                    await (await cloud.client.servers.delete(failed.id)).result(LIMIT)


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """The same call again while nobody answers, as whoever is told `Unavailable` should."""
    async with asyncio.timeout(2 * LIMIT.total_seconds()):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.2)
