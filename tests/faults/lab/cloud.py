"""The lab in which cases happen: three hosts with a power switch and a cable, and everything that is seen of them."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psutil

from deploy.lab import control, lab, wires
from deploy.lab.host import Host, hosts_directory, hosts_of
from deploy.lab.site import Refused, Site
from hostler import temporal
from hostler.client import Client
from hostler.client.connection import Connection
from hostler.contract.errors import Unavailable
from hostler.contract.names import host_queue, host_workflow_id
from tests.faults.files import IGNORED
from tests.faults.lab.control import BOOK
from tests.faults.lab.watcher import IS_OFF, RUNS, STANDS_STILL, TWICE
from tests.faults.plan import Book, Plan, Struck
from tests.faults.site import NotQuiet
from tests.lab.conftest import free_subnets

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / ".cache" / "demo.qcow2"
HOSTS = 3
EMPTY, BOOTS = "empty", "demo"
SMALL, LARGER, NETWORK = "tiny", "small", "net"
POLL_SECONDS = 0.1
LIMIT = timedelta(seconds=120)
WORKER = """\
#!/bin/sh
cd {root} && exec {python} -m tests.faults.lab.worker host /run/lab/host/{book}
"""
# Shorter than a real cloud's, or every case would wait for minutes. Nobody but the cases switches hosts off.
SETTINGS = """
[timeouts]
host_answer = 6
stop = 1

[scheduler]
spread = 1

[audit]
interval = 0
"""
WATCHED, UNWATCHED = "interval = 2\nsilence", "interval = 0\nsilence"
SUPERVISED = ("qemu-system", "qemu-nbd", "dnsmasq")


@dataclass(frozen=True)
class Seen:
    """Something that the watcher saw."""

    at: float
    host: str
    guest: str
    what: str

    def __str__(self) -> str:
        return f"{self.at % 1000:.1f} {self.host}: {self.what}"


@dataclass(frozen=True)
class Registration:
    """When a registration ended, and for which steps the host was asked by it, in their order."""

    ended: float
    asked: list[str]


@dataclass
class LabCloud:
    """A lab that is up, with faults in its workers and a watcher beside it."""

    site: Site
    connection: Connection
    client: Client
    hosts: dict[str, Host]
    log: Path
    books: list[Book] = field(default_factory=list)

    def arm(self, plan: Plan) -> None:
        """From here on the plan's fault strikes, whichever worker has the step."""
        self.disarm()
        for book in self.books:
            book.arm(plan)

    def disarm(self) -> None:
        """Nothing strikes any more; what struck is forgotten."""
        for book in self.books:
            book.clear()

    def struck(self) -> list[Struck]:
        """What struck since the last plan."""
        return [one for book in self.books for one in book.struck()]

    def deal(self) -> None:
        """The struck step need not be kept up any longer."""
        for book in self.books:
            book.deal()

    def seen(self, guest: str) -> list[Seen]:
        """All that the watcher saw of a guest."""
        lines = [Seen(**json.loads(line)) for line in self.log.read_text().splitlines()]
        return [one for one in lines if one.guest == guest]

    def whereabouts(self, guest: str) -> dict[str, str]:
        """What the guest does on which hosts, as it was last seen."""
        last = {one.host: one.what for one in self.seen(guest) if one.what != TWICE}
        return {host: what for host, what in last.items() if what in (RUNS, STANDS_STILL, IS_OFF)}

    async def put_in_order(self) -> None:
        """Whatever is off or cut off is on again; returns when every host is up, and owes nothing."""
        for host in self.hosts.values():
            if not host.joined:
                host.join()
            if host.init is None:
                await asyncio.to_thread(host.start)
        reasons: list[str] = []

        async def in_order() -> bool:
            reasons[:] = await self._unrest()
            return not reasons

        try:
            await until(in_order, "order")
        except NotQuiet as told:
            raise NotQuiet(f"{told}: {', '.join(reasons)}") from None

    async def _unrest(self) -> list[str]:
        """Which hosts are not what they were. One that was taken out of service is taken back."""
        found = []
        for host in await self.client.hosts.list():
            if not host.up or host.owed or host.down_since:
                found.append(f"{host.name} is {'up' if host.up else 'down'} and owes {host.owed}")
            elif not host.enabled:
                await self.client.hosts.enable(host.name)
        return found

    async def until_up(self, name: str) -> None:
        """Return when a host is up."""

        async def up() -> bool:
            return (await self.client.hosts.show(name)).up

        await until(up, f"{name} to be up")

    async def until_down(self, name: str) -> None:
        """Return when a host is known to be down."""

        async def down() -> bool:
            return not (await self.client.hosts.show(name)).up

        await until(down, f"{name} to be down")

    async def registration(self, name: str, since: datetime) -> "Registration":
        """The first registration of a host that has begun since then, when it has ended."""
        workflow_id = host_workflow_id((await self.client.hosts.show(name)).id)
        run_id = ""

        async def began() -> bool:
            nonlocal run_id
            description = await self.connection.temporal.get_workflow_handle(workflow_id).describe()
            run_id = description.run_id
            return description.start_time > since

        await until(began, f"{name} to register")
        handle = self.connection.temporal.get_workflow_handle(workflow_id, run_id=run_id)
        async with asyncio.timeout(LIMIT.total_seconds()):
            await handle.result()
        ended = (await handle.describe()).close_time
        assert ended is not None
        scheduled = [
            event.activity_task_scheduled_event_attributes
            async for event in handle.fetch_history_events()
            if event.HasField("activity_task_scheduled_event_attributes")
        ]
        queue = host_queue(workflow_id.partition(":")[2])
        asked = [one.activity_type.name for one in scheduled if one.task_queue.name == queue]
        return Registration(ended.timestamp(), asked)

    def traces(self) -> dict[str, list[str]]:
        """What hosts have for servers: files but for the cache, processes, links."""
        return {name: sorted(_traces(host)) for name, host in self.hosts.items()}


async def until(condition: Callable[[], Awaitable[bool]], what: str, limit: timedelta = LIMIT) -> None:
    """Return when the condition holds.

    Raises:
        NotQuiet: it does not.
    """
    end = monotonic() + limit.total_seconds()
    while True:
        with suppress(Unavailable):
            if await condition():
                return
        if monotonic() > end:
            raise NotQuiet(f"waited {limit.total_seconds():g} s in vain for {what}")
        await asyncio.sleep(POLL_SECONDS)


def _traces(host: Host) -> Iterator[str]:
    state = host.directory / "state"
    for root, _, names in os.walk(state):
        for name in (str((Path(root) / file).relative_to(state)) for file in names):
            if not IGNORED.search(name) and "cache" not in Path(name).parts:
                yield f"file {name}"
    init = host.init
    if init is None:
        return
    for process in init.children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith(SUPERVISED):
                yield f"process {process.name()}"
    shown = subprocess.run(host.inside("ip", "-json", "link"), capture_output=True, text=True, check=True)
    for link in json.loads(shown.stdout):
        yield f"link {link['ifname']}"


@asynccontextmanager
async def temporary_lab() -> AsyncIterator[LabCloud]:
    """A lab of its own; nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="hostler-faults-", dir="/var/tmp"))
    try:
        empty = await asyncio.to_thread(_make_ready, directory)
        site = Site(directory / "lab", f"hlf{uuid4().hex[:6]}", free_subnets()[0], HOSTS)
        async with lab_cloud(site, empty) as cloud:
            yield cloud
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def lab_cloud(site: Site, empty: Path, *, keep: bool = False) -> AsyncIterator[LabCloud]:
    """A lab for cases. `empty` is a disk with nothing on it; with `keep` the lab is up afterwards."""
    log = site.directory / "seen.jsonl"
    watcher: subprocess.Popen[bytes] | None = None
    try:
        await asyncio.to_thread(_up, site)
        log.unlink(missing_ok=True)
        log.touch()
        watcher = await asyncio.to_thread(_watch, site, log)
        cloud = await _connect(site, log)
        await _fill(cloud.client, empty)
        yield cloud
    finally:
        if watcher is not None:
            watcher.kill()
            watcher.wait()
        if not keep:
            await asyncio.to_thread(lab.down, site)


def _make_ready(directory: Path) -> Path:
    """Let QEMU and dnsmasq, which are users of their own, into the directory; a disk with nothing on it."""
    directory.chmod(0o755)
    disk = directory / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True)
    return disk


def _watch(site: Site, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.faults.lab.watcher", str(site.directory), str(log)]
    with (site.directory / "watcher.log").open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)


def _up(site: Site) -> None:
    """Bring the lab up, with our own workers."""
    wires.refuse_taken(site)
    site.save()
    wires.ensure_bridge(site)
    if not hosts_directory(site).exists():
        lab.install(site)
        _change(site)
    if control.pid(site) is None:
        _start_control(site)
    lab.up(site)


def _change(site: Site) -> None:
    """Change what a new lab is started with."""
    text = site.config.read_text()
    if WATCHED not in text:
        raise Refused("the lab's settings are not what they were", f"{__file__} must learn its new ones")
    site.config.write_text(text.replace(WATCHED, UNWATCHED) + SETTINGS)
    for host in hosts_of(site):
        worker = host.directory / "worker"
        worker.write_text(WORKER.format(root=ROOT, python=sys.executable, book=BOOK))
        worker.chmod(0o755)


def _start_control(site: Site) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
    command = [sys.executable, "-m", "tests.faults.lab.control", str(site.directory)]
    with (site.directory / control.LOG).open("wb") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
            env=environment,
        )
    end = monotonic() + LIMIT.total_seconds()
    while control.pid(site) is None and monotonic() < end:
        time.sleep(POLL_SECONDS)


async def _connect(site: Site, log: Path) -> LabCloud:
    settings = control.settings_of(site)
    connection = Connection(await temporal.connect(settings), settings, settings.project)
    hosts = {host.name: host for host in hosts_of(site)}
    books = [site.directory / BOOK, *(host.directory / BOOK for host in hosts.values())]
    for directory in books:
        directory.mkdir(exist_ok=True)
    return LabCloud(site, connection, Client(connection), hosts, log, [Book(directory) for directory in books])


async def _fill(client: Client, empty: Path) -> None:
    """The catalogue, unless the lab has it."""
    if await client.flavors.list():
        return
    await client.flavors.create(SMALL, vcpus=1, ram_mib=96, disk_gib=1)
    await client.flavors.create(LARGER, vcpus=1, ram_mib=128, disk_gib=1)
    await client.networks.create(NETWORK, cidr="10.232.9.0/24")
    await client.images.create(BOOTS, DEMO)
    await client.images.create(EMPTY, empty)
