"""What has happened when an operator opens a page: for each one a function of the page's name.

It yields the site with the page's variables, and asserts what must be true when the page has been followed.
"""

import asyncio
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from sqlmodel import select
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import boot_disk
from hostler.contract.errors import HostlerError
from hostler.contract.resources import DiskFormat
from hostler.contract.servers import OnFailure, Server
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings, SimulatedFault, SimulatedSettings
from models import Host, Image, Volume
from tests.cloud import DEMO, TINY
from tests.drivers.hypervisor.libvirt.guests import guest, ignore, image_ref, root_disk
from tests.processes.cloud import LIMIT, ProcessCloud, process_cloud
from tests.runbooks.site import Site, site
from tests.upgrades.next_release import ROOT, STEP, make_next_release
from tests.upgrades.test_upgrade import holding
from workers import dev, temporal_server
from workers.host_identity import host_id

Scene = tuple[Site, Mapping[str, str]]
HOST, OTHER, REAL = "sim-1-1", "sim-2-1", "real-1"
FREE_ADDRESS = "10.231.9.9"
DISK_BYTES = 2 << 20
# A boot sector that writes 1.5 MiB to the disk that it came from. When QEMU is refused it pauses, and tries again when
# it is resumed.
WRITER = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "be207c"  # mov si, packet
    "b80043"  # next: mov ax, 0x4300      write
    "cd13"  # int 0x13
    "8306287c40"  # add word [packet + 8], 64
    "813e287c400c"  # cmp word [packet + 8], 49 * 64
    "75ee"  # jne next
    "f4"  # halt: hlt
    "ebfd"  # jmp halt
    "00000000"
    "1000400000000010"  # packet: 64 sectors from 0x1000:0
    "4000000000000000"  # to the 64th one and on
).ljust(510, b"\0") + bytes.fromhex("55aa")


@asynccontextmanager
async def server_stuck(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds: the one host that it was allowed to try refuses."""
    broken = SimulatedFault(host=HOST, call="spawn", message="Input/output error", times=-1)
    async with scene(directory, faults=[broken]) as place:
        unwanted = await held_boot(place.cloud, "unwanted")
        server_id = await held_boot(place.cloud)
        yield place, {"SERVER": server_id, "UNWANTED": unwanted, "HOST": HOST, "OTHER": OTHER}
        server = await place.cloud.client.servers.show(server_id)
        assert (server.status, server.host, server.hold) == ("ACTIVE", OTHER, None)
        assert (await place.cloud.client.servers.show(unwanted)).status == "ERROR"


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
    """A host with two servers is dead; another server has moved from there, and that is not confirmed."""
    async with scene(directory) as place:
        server, unwanted = await on(place.cloud, HOST), await on(place.cloud, HOST, "unwanted")
        moved = await on(place.cloud, HOST, "moved")
        await (await place.cloud.client.servers.migrate(moved.id)).result(LIMIT)
        place.cloud.hosts[0].kill()
        names = {"SERVER": server.id, "UNWANTED": unwanted.id, "MOVED": moved.id}
        yield place, {**names, "HOST": HOST, "OTHER": OTHER}
        assert {s.name: (s.status, s.host) for s in await place.cloud.client.servers.list()} == {
            server.name: ("ACTIVE", OTHER),
            "moved": ("ACTIVE", OTHER),
            "replacement": ("ACTIVE", OTHER),
        }
        assert (await place.cloud.client.hosts.show(HOST)).owed


@asynccontextmanager
async def too_many_hosts_lost(directory: Path) -> AsyncIterator[Scene]:
    """Both hosts are dead. One has a server that is to be evacuated, and cannot be fenced."""
    watch = {"INTERVAL": "0.5", "SILENCE": "3", "FENCE_COMMAND": '["false"]'}
    environment = {f"HOSTLER_HOST_FAILURE__{setting}": value for setting, value in watch.items()}
    async with scene(directory, environment=environment) as place:
        cloud = place.cloud
        server = await cloud.booted("web", host=HOST, metadata={"hostler:evacuate": "true"})
        await on(cloud, OTHER, "other")
        for host in cloud.hosts:
            host.kill()
        yield place, {"SERVER": server.id, "HOST": HOST, "OTHER": OTHER}
        assert {one.name: (one.status, one.host) for one in await cloud.client.servers.list()} == {
            "web": ("ACTIVE", OTHER),
            "other": ("ACTIVE", OTHER),
        }
        assert (await cloud.client.hosts.show(HOST)).down_since


@asynccontextmanager
async def host_came_back(directory: Path) -> AsyncIterator[Scene]:
    """A host that was dead, and of whose two servers one was deleted meanwhile, is powered on again: guests are off.

    It was on another machine before, which simulated hosts are not asked for when they register.
    """
    async with scene(directory) as place:
        kept, deleted = await on(place.cloud, HOST, "kept"), await on(place.cloud, HOST, "deleted")
        place.cloud.hosts[0].kill()
        await place.cloud.client.hosts.disable(HOST, "died")
        await place.cloud.deleted(deleted.id)
        for file in place.cloud.settings.state_dir.glob(f"simulated/{HOST}/guests/*.json"):
            file.write_text(file.read_text().replace(PowerState.RUNNING, PowerState.SHUTDOWN))
        with place.cloud.database.write() as session:
            session.exec(select(Host).where(Host.name == HOST)).one().machine_id = "former"
        yield place, {"SERVER": kept.id, "HOST": HOST}
        world = await place.cloud.settled()
        assert world.guests == {(HOST, kept.id)}
        assert (await place.cloud.client.hosts.show(HOST)).enabled
        assert {host.machine_id for host in place.cloud.rows(Host)} == {None}


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
        yield (
            place,
            {
                "KEPT": kept.id,
                "GONE": gone.id,
                "NEWER": newer.id,
                "ADDRESS": FREE_ADDRESS,
                "HOST": HOST,
                "OTHER": OTHER,
                "CONTROL": "control-1",
            },
        )
        world = await cloud.world()
        servers = {server.name: server for server in await cloud.client.servers.list()}
        assert servers.keys() == {"kept", "web"}
        unknown = world.guests - {(HOST, kept.id), (OTHER, servers["web"].id)}
        assert unknown == {(HOST, newer.id)}, "what the database does not know is still there"


@asynccontextmanager
async def temporal_lost(directory: Path) -> AsyncIterator[Scene]:
    """Temporal has lost all that it knew, in the middle of a build, and is there again, without even a namespace."""
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
        temporal = await temporal_server.wait_ready(cloud.settings.temporal)
        await without_namespace(temporal)
        yield (
            place,
            {
                "NAMESPACE": temporal.namespace,
                "PROJECT": cloud.settings.project,
                "IDLE": idle.id,
                "LOST": build.server_id,
                "CONTROL": "control-1",
                "HOST": HOST,
                "OTHER": OTHER,
            },
        )
        world = await cloud.settled()
        assert world.guests == {(HOST, idle.id)}
        assert {name for name, _ in world.allocations} == {HOST}


@asynccontextmanager
async def disk_full(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds for want of space, and the cache takes what a real guest of the machine needs, which is paused."""
    full = SimulatedFault(host=HOST, call="spawn", message="No space left on device", times=1)
    async with AsyncExitStack() as stack:
        root = stack.enter_context(open_directory())
        place = await stack.enter_async_context(scene(directory, faults=[full]))
        state = stack.enter_context(small_disk(root / "state"))
        cache = place.cloud.settings.state_dir / "simulated" / "cache"
        cache.rmdir()
        cache.symlink_to(state / "cache")
        server_id = await held_boot(place.cloud)
        old = root / "old.raw"
        old.write_bytes(bytes(DISK_BYTES))
        image = (await place.cloud.client.images.create("old", old, disk_format=DiskFormat.RAW)).id
        shutil.copy(old, cache / image)
        hypervisor = await stack.enter_async_context(libvirt(state, str(uuid4())))
        disk = root / "writer.raw"
        disk.write_bytes(WRITER.ljust(DISK_BYTES, b"\0"))
        paused = await stack.enter_async_context(real_guest(hypervisor, disk, str(uuid4())))
        async with asyncio.timeout(LIMIT.total_seconds()):
            while await hypervisor.power_state(paused) is not PowerState.PAUSED:  # noqa: ASYNC110 - it is about QEMU
                await asyncio.sleep(0.1)
        yield place, {"SERVER": server_id, "PAUSED": paused, "IMAGE": image, "HOST": HOST, "STATE": str(state)}
        server = await place.cloud.client.servers.show(server_id)
        assert (server.status, server.host) == ("ACTIVE", HOST)
        assert not (cache / image).exists()
        assert await hypervisor.power_state(paused) is PowerState.RUNNING


@asynccontextmanager
async def leaked_thing(directory: Path) -> AsyncIterator[Scene]:
    """A real host has a claim of a deleted server, and claim and guest of a server that nobody knows.

    An image and a volume are being made by nobody, and an operation is not wanted.
    """
    refuses = SimulatedFault(host=HOST, call="spawn", message="Input/output error", times=1)
    async with AsyncExitStack() as stack:
        state = stack.enter_context(open_directory()) / "state"
        audit = {"HOSTLER_AUDIT__INTERVAL": str(timedelta(days=7).total_seconds())}
        place = await stack.enter_async_context(scene(directory, faults=[refuses], volumes=True, environment=audit))
        cloud = place.cloud
        server = await on(cloud, OTHER)
        [claim] = cloud.settings.state_dir.glob(f"simulated/{OTHER}/claims/*.json")
        content = claim.read_text()
        await cloud.deleted(server.id)
        unwanted = await held_boot(cloud, "unwanted")

        place.add(REAL, "hostler-host", cloud.add_host(REAL, real_host(cloud, state)))
        await dev.hosts_up(cloud.settings, 3)
        stranger = str(uuid4())
        (state / "claims").mkdir(exist_ok=True)
        (state / "claims" / f"{server.id}.json").write_text(content)
        (state / "claims" / f"{stranger}.json").write_text(content.replace(server.id, stranger))
        hypervisor = await stack.enter_async_context(libvirt(state, host_id(state)))
        disk = state.with_name("disk.raw")
        disk.write_bytes(boot_disk().ljust(DISK_BYTES, b"\0"))
        await stack.enter_async_context(real_guest(hypervisor, disk, stranger))

        image, volume = str(uuid4()), str(uuid4())
        keeper = (await cloud.client.hosts.show(OTHER)).id
        with cloud.database.write() as session:
            session.add(Image(id=image, name="half", disk_format=DiskFormat.QCOW2))
            session.add(Volume(id=volume, name="half", size_gib=1, host_id=keeper))
        yield (
            place,
            {
                "SERVER": server.id,
                "STRANGER": stranger,
                "UNWANTED": unwanted,
                "IMAGE": image,
                "VOLUME": volume,
                "HOST": REAL,
                "STATE": str(state),
            },
        )
        world = await cloud.settled()
        assert not world.volumes
        assert {image.name for image in await cloud.client.images.list()} == {DEMO}
        left = [file for kind in ("claims", "guests", "claims/former") for file in (state / kind).glob("*")]
        assert left == [state / "claims" / "former"]
        assert await hypervisor.guests() == []


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
        release = make_next_release(place.directory / "hostler").tree
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, release)
        shutil.copytree(ROOT / "deploy" / "server", release / "deploy" / "server")
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
    volumes: bool = False,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Site]:
    """A cloud of two machines with one simulated host each."""
    simulated = SimulatedSettings(faults=faults or [], latency=latency or {}, volumes=volumes)
    async with (
        process_cloud(
            directory / "cloud", hosts=(1, 1), controls=controls, simulated=simulated, environment=environment
        ) as cloud,
        site(cloud, directory / "site") as place,
    ):
        yield place


async def on(cloud: ProcessCloud, host: str, name: str = "web") -> Server:
    """A server that is up on the host."""
    return await cloud.booted(name, host=host)


async def without_namespace(temporal: Client) -> None:
    """Delete the namespace, which the development server makes by itself, and others do not."""
    await temporal.operator_service.delete_namespace(DeleteNamespaceRequest(namespace=temporal.namespace))
    async with asyncio.timeout(LIMIT.total_seconds()):
        with suppress(RPCError):
            while True:  # the server's cache goes on with it for a while
                await temporal.count_workflows()
                await asyncio.sleep(0.1)


async def held_boot(cloud: ProcessCloud, name: str = "web") -> str:
    """The UUID of a server whose boot holds, having tried `HOST` alone."""
    await cloud.client.hosts.disable(OTHER)
    boot = await cloud.boot(name, on_failure=OnFailure.HOLD, max_attempts=1)
    await holding(boot)
    async with asyncio.timeout(LIMIT.total_seconds()):  # Temporal's index lags behind
        while boot.server_id not in {held.server_id for held in await cloud.client.operations.list(held=True)}:
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


# What is real: a host, its guests, its disk.


@contextmanager
def open_directory() -> Iterator[Path]:
    """One that QEMU, which is another user, can pass through; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="hostler-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of its own, with room for an image and a half."""
    directory.mkdir()
    size = f"size={DISK_BYTES * 3 // 2}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{size},mode=755", "tmpfs", str(directory)], check=True)
    try:
        (directory / "cache").mkdir()
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def real_host(cloud: ProcessCloud, state: Path) -> Mapping[str, str]:
    """The settings of a host that is this machine."""
    return {
        "HOSTLER_STATE_DIR": str(state),
        "HOSTLER_IMAGES": str(cloud.settings.images_dir),
        "HOSTLER_HOST__NAME": REAL,
        "HOSTLER_HOST__DRIVER": "libvirt",
        "HOSTLER_HOST__VOLUMES": "false",
        "HOSTLER_HOST__LIBVIRT__VIRT_TYPE": "qemu",
    }


@asynccontextmanager
async def libvirt(state: Path, host: str) -> AsyncIterator[LibvirtHypervisor]:
    """The driver of a host that is this machine."""
    driver = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state, host)
    try:
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def real_guest(hypervisor: LibvirtHypervisor, disk: Path, server_id: str) -> AsyncIterator[str]:
    """A guest that runs from a raw disk, made as for a server."""
    image = image_ref(disk, DiskFormat.RAW, DISK_BYTES)
    try:
        await hypervisor.spawn(guest(root_disk(image, DISK_BYTES), server_id=server_id), disk, ignore)
        await hypervisor.resume(server_id)
        yield server_id
    finally:
        await hypervisor.destroy(server_id)
