"""What has happened when an operator opens a page: for each one a function of the page's name.

It yields the site with the page's variables, and asserts what must be true when the page has been followed.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from hostler.contract.errors import HostlerError
from hostler.contract.servers import OnFailure, Server
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.cloud import TINY
from tests.processes.cloud import LIMIT, ProcessCloud, process_cloud
from tests.runbooks.site import Site, site
from tests.upgrades.next_release import STEP, make_next_release
from tests.upgrades.test_upgrade import holding
from workers import temporal_server

Scene = tuple[Site, Mapping[str, str]]
HOST, OTHER = "sim-1-1", "sim-2-1"


@asynccontextmanager
async def server_stuck(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds: the one host that it was allowed to try refuses."""
    broken = SimulatedFault(host=HOST, call="spawn", message="Input/output error", times=-1)
    async with scene(directory, faults=[broken]) as place:
        server_id = await held_boot(place.cloud)
        yield place, {"SERVER": server_id, "HOST": HOST, "OTHER": OTHER}
        server = await place.cloud.client.servers.show(server_id)
        assert (server.status, server.host, server.hold) == ("ACTIVE", OTHER, None)


@asynccontextmanager
async def build_failed_everywhere(directory: Path) -> AsyncIterator[Scene]:
    """Every host refused one server, and another is too large for all of them."""
    unplugged = SimulatedFault(host="*", call="spawn", message="the storage network is down", times=1)
    async with scene(directory, faults=[unplugged]) as place:
        await place.cloud.client.flavors.create("huge", vcpus=1, ram_mib=2**20)
        failed = await failed_boot(place.cloud, "web", TINY)
        large = await failed_boot(place.cloud, "db", "huge")
        yield place, {"SERVER": failed, "LARGE": large, "HOST": HOST}
        assert {server.name: server.status for server in await place.cloud.client.servers.list()} == {"web": "ACTIVE"}


@asynccontextmanager
async def host_died(directory: Path) -> AsyncIterator[Scene]:
    """A host with a server is dead."""
    async with scene(directory) as place:
        server = await on(place.cloud, HOST)
        place.cloud.hosts[0].kill()
        yield place, {"SERVER": server.id, "HOST": HOST, "OTHER": OTHER}
        assert {s.name: (s.status, s.host) for s in await place.cloud.client.servers.list()} == {
            "replacement": ("ACTIVE", OTHER)
        }
        assert (await place.cloud.client.hosts.show(HOST)).owed


@asynccontextmanager
async def host_came_back(directory: Path) -> AsyncIterator[Scene]:
    """A host that was dead, and of whose two servers one was deleted meanwhile, is powered on again."""
    async with scene(directory) as place:
        kept, deleted = await on(place.cloud, HOST, "kept"), await on(place.cloud, HOST, "deleted")
        place.cloud.hosts[0].kill()
        await place.cloud.client.hosts.disable(HOST, "died")
        await place.cloud.deleted(deleted.id)
        yield place, {"SERVER": kept.id, "HOST": HOST}
        world = await place.cloud.settled()
        assert world.guests == {(HOST, kept.id)}
        assert (await place.cloud.client.hosts.show(HOST)).enabled


@asynccontextmanager
async def database_restored(directory: Path) -> AsyncIterator[Scene]:
    """The database is that of before one server was made and another one deleted."""
    async with scene(directory) as place:
        cloud = place.cloud
        kept, gone = await on(cloud, HOST, "kept"), await on(cloud, HOST, "gone")
        database, backup = cloud.settings.state_dir / "hostler.db", directory / "backup.db"
        with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(backup)) as copy:
            live.backup(copy)
        newer = await on(cloud, HOST, "newer")
        await cloud.deleted(gone.id)
        cloud.controls[0].stop()
        cloud.database.close()
        for file in database.parent.glob("hostler.db*"):
            file.unlink()
        shutil.copy(backup, database)
        yield place, {"KEPT": kept.id, "GONE": gone.id, "NEWER": newer.id, "HOST": HOST, "CONTROL": "control-1"}
        world = await cloud.world()
        assert world.guests == {(HOST, kept.id), (HOST, newer.id)}, "what the database does not know is still there"
        assert {server.id for server in await cloud.client.servers.list()} == {kept.id}


@asynccontextmanager
async def temporal_lost(directory: Path) -> AsyncIterator[Scene]:
    """Temporal has lost all that it knew, in the middle of a build, and is there again, empty."""
    async with scene(directory, latency={"spawn": timedelta(seconds=20)}) as place:
        cloud = place.cloud
        idle = await on(cloud, HOST, "idle")
        build = await cloud.boot("half-built", host=OTHER)
        await cloud.reached(build, "spawn")
        cloud.temporal.kill()
        for file in cloud.directory.glob("temporal.db*"):
            file.unlink()
        with closing(sqlite3.connect(cloud.settings.state_dir / "hostler.db")) as database:
            database.execute("UPDATE server SET updated_at = datetime(updated_at, '-10 minutes')")
            database.commit()
        cloud.start_temporal()
        await temporal_server.wait_ready(cloud.settings.temporal)
        yield place, {"IDLE": idle.id, "LOST": build.server_id, "CONTROL": "control-1", "HOST": HOST, "OTHER": OTHER}
        world = await cloud.settled()
        assert world.guests == {(HOST, idle.id)}
        assert {name for name, _ in world.allocations} == {HOST}


@asynccontextmanager
async def disk_full(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds for want of space, on a host whose cache has an image that was deleted."""
    full = SimulatedFault(host=HOST, call="spawn", message="No space left on device", times=1)
    async with scene(directory, faults=[full]) as place:
        server_id = await held_boot(place.cloud)
        cached = place.cloud.settings.state_dir / "simulated" / "cache" / str(uuid4())
        cached.write_bytes(bytes(2**20))
        yield place, {"SERVER": server_id, "HOST": HOST, "STATE": str(place.cloud.settings.state_dir)}
        server = await place.cloud.client.servers.show(server_id)
        assert (server.status, server.host) == ("ACTIVE", HOST)
        assert not cached.exists()


@asynccontextmanager
async def leaked_thing(directory: Path) -> AsyncIterator[Scene]:
    """A host has a claim of a deleted server, and one of a server that nobody knows."""
    async with scene(directory) as place:
        claims = place.cloud.settings.state_dir / "simulated" / HOST / "claims"
        server = await on(place.cloud, HOST)
        [claim] = claims.iterdir()
        content = claim.read_text()
        await place.cloud.deleted(server.id)
        stranger = str(uuid4())
        claim.write_text(content)
        claim.with_stem(stranger).write_text(content.replace(server.id, stranger))
        yield place, {"SERVER": server.id, "STRANGER": stranger, "HOST": HOST, "STATE": str(claims.parent)}
        assert not list(claims.iterdir())


@asynccontextmanager
async def worker_upgrade(directory: Path) -> AsyncIterator[Scene]:
    """A boot is at its longest step."""
    async with scene(directory, latency={"spawn": timedelta(seconds=20)}) as place:
        boot = await place.cloud.boot(host=HOST)
        await place.cloud.reached(boot, "spawn")
        yield place, {"SERVER": boot.server_id, "HOST": HOST, "CONTROL": "control-1"}
        server = await place.cloud.client.servers.show(boot.server_id)
        assert (server.status, server.host) == ("ACTIVE", HOST)


@asynccontextmanager
async def new_release(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds, and there is a release of which nothing is installed yet."""
    full = SimulatedFault(host=HOST, call="spawn", message="No space left on device", times=1)
    async with scene(directory, faults=[full], controls=2) as place:
        place.next_release = make_next_release(directory / "next")
        server_id = await held_boot(place.cloud)
        variables = {
            "SERVER": server_id,
            "HOST": HOST,
            "OTHER": OTHER,
            "FIRST": "control-1",
            "SECOND": "control-2",
        }
        yield place, variables
        assert (await place.cloud.client.servers.show(server_id)).status == "ACTIVE"
        assert STEP in [event.step.name for event in await place.cloud.client.servers.events(server_id)]


@asynccontextmanager
async def scene(
    directory: Path,
    *,
    faults: list[SimulatedFault] | None = None,
    latency: dict[str, timedelta] | None = None,
    controls: int = 1,
) -> AsyncIterator[Site]:
    """A cloud of two machines with one host each."""
    simulated = SimulatedSettings(faults=faults or [], latency=latency or {})
    async with (
        process_cloud(directory / "cloud", hosts=(1, 1), controls=controls, simulated=simulated) as cloud,
        site(cloud, directory / "site") as place,
    ):
        yield place


async def on(cloud: ProcessCloud, host: str, name: str = "web") -> Server:
    """A server that is up on the host."""
    return await cloud.booted(name, host=host)


async def held_boot(cloud: ProcessCloud) -> str:
    """The UUID of a server whose boot holds, having tried `HOST` alone."""
    await cloud.client.hosts.disable(OTHER)
    boot = await cloud.boot(on_failure=OnFailure.HOLD, max_attempts=1)
    await holding(boot)
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not await cloud.client.operations.list(held=True):  # Temporal's index lags behind
            pass
    await cloud.client.hosts.enable(OTHER)
    return boot.server_id


async def failed_boot(cloud: ProcessCloud, name: str, flavor: str) -> str:
    """The UUID of a server whose boot has failed."""
    boot = await cloud.boot(name, flavor=flavor)
    try:
        await boot.result(LIMIT)
    except HostlerError:
        return boot.server_id
    raise AssertionError(f"{name} was built")
