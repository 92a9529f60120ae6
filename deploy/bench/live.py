"""A live migration of an idle guest of 128 MiB, against bare `virsh migrate` of one alike, between two hosts of a lab.

Both sides take turns, there and back, so that what else the machine does hits both alike. How long a guest stands still
is what its hypervisor says, and on Hostler's side also what it takes until the guest runs on its new host.
"""

import asyncio
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lxml import etree

from deploy.lab import control, lab
from deploy.lab.host import Host, hosts_of
from deploy.lab.site import Site
from hostler.client import Client
from hostler.contract.servers import Server

IMAGE = Path(__file__).parents[2] / ".cache" / "demo.qcow2"
ROUNDS = 10
NAME, SUBNET = "hlbench", "198.18.73.0/24"
LOGIN_SECONDS = 120
REST_SECONDS = (2, 4)
"""A guest that has just come is not idle: its translated code stayed behind, and so did the wires."""
STOOD_STILL = re.compile(r"stood still for (\d+) ms")
DOWNTIME = re.compile(r"Total downtime:\s+(\d+)\s+ms|Downtime w/o network:\s+(\d+)\s+ms")
BARE = Path("/run/lab/host/bare")
"""On each host's own disk."""


async def measure(site: Site) -> dict[str, Mapping[str, float]]:
    """Medians of both, and their ratios."""
    hosts = hosts_of(site)
    async with await Client.connect(control.settings_of(site)) as client:
        await client.flavors.create("small", vcpus=1, ram_mib=128)
        await client.networks.create("lan", cidr="10.231.0.0/24")
        await client.images.create("demo", IMAGE)
        server = await booted(client, hosts[0])
        server = await migrated(client, server, hosts[1])  # the first fetches the image
        server = await migrated(client, server, hosts[0])
        bare = await asyncio.to_thread(BareGuest, server, hosts)
        ours, theirs = [], []
        for round_ in range(ROUNDS):
            to = hosts[(round_ + 1) % 2]
            await asyncio.sleep(random.uniform(*REST_SECONDS))
            began = time.perf_counter()
            server = await migrated(client, server, to)
            ours.append((time.perf_counter() - began, await stood_still(client, server)))
            await asyncio.sleep(random.uniform(*REST_SECONDS))
            theirs.append(await asyncio.to_thread(bare.migrate, to))
        await asyncio.to_thread(bare.remove)
        await (await client.servers.delete(server.id)).result()
    return figures(ours, theirs)


async def booted(client: Client, host: Host) -> Server:
    """A guest that has come up, and does nothing from now on but count."""
    server = await (
        await client.servers.boot("guest", flavor="small", networks=["lan"], image="demo", host=host.name)
    ).result()
    deadline = time.monotonic() + LOGIN_SECONDS
    while "login:" not in await client.servers.console_log(server.id):
        if time.monotonic() > deadline:
            raise TimeoutError("the guest does not come up")
        await asyncio.sleep(0.5)
    return server


async def migrated(client: Client, server: Server, to: Host) -> Server:
    """The server on its next host."""
    return await (await client.servers.live_migrate(server.id, host=to.name)).result()


async def stood_still(client: Client, server: Server) -> float:
    """For how many milliseconds the last migration had the guest stand still."""
    events = await client.servers.events(server.id)
    note = [event.step.note or "" for event in events if event.step.name == "migrate_guest"][-1]
    found = STOOD_STILL.search(note)
    if found is None:
        raise ValueError(f"the step says nothing of it: {note!r}")
    return float(found[1])


class BareGuest:
    """A guest like the server's that only libvirt knows, on the first of two hosts."""

    def __init__(self, server: Server, hosts: list[Host]) -> None:
        self.id, self.hosts, self.host = str(uuid4()), hosts, hosts[0]
        xml = etree.fromstring(self._virsh(hosts[0], "dumpxml", "--inactive", server.id).encode())
        disk = xml.xpath("devices/disk[@device='disk']")[0]
        base = disk.find("backingStore/source").get("file")
        size = disk.find("source").get("file")
        size_bytes = self._run(hosts[0], "sh", "-c", f"qemu-img info -U --output=json {size} | grep -m1 virtual-size")
        self.create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, str(BARE / "disk")]
        self.create.append(re.sub(r"\D", "", size_bytes))
        self._make_disk(self.host)
        self._rewrite(xml, disk)
        self._run(self.host, "sh", "-c", f"cat >{BARE}/domain.xml", input=etree.tostring(xml, encoding="unicode"))
        self._virsh(self.host, "define", str(BARE / "domain.xml"))
        self._virsh(self.host, "start", self.id)
        deadline = time.monotonic() + LOGIN_SECONDS
        while "login:" not in self._run(self.host, "cat", str(BARE / "console.log")):
            if time.monotonic() > deadline:
                raise TimeoutError("the bare guest does not come up")
            time.sleep(0.5)

    def _rewrite(self, xml: etree._Element, disk: etree._Element) -> None:
        """Another identity, another disk, no mark of Hostler's."""
        xml.find("name").text, xml.find("uuid").text = f"bare-{self.id}", self.id  # type: ignore[union-attr]  # each has both
        for gone in xml.xpath("metadata | devices/disk[@device='cdrom'] | devices/interface/target"):
            gone.getparent().remove(gone)
        for mac in xml.xpath("devices/interface/mac"):
            mac.set("address", "fa:16:3e:00:be:7c")
        disk.find("source").set("file", str(BARE / "disk"))  # type: ignore[union-attr]  # it is a file
        for log in xml.xpath("devices/serial/log | devices/console/log"):
            log.set("file", str(BARE / "console.log"))

    def migrate(self, to: Host) -> tuple[float, float]:
        """How many seconds it takes, to a disk that is new, and for how many milliseconds the guest stands still."""
        self._make_disk(to)
        how = ["--live", "--p2p", "--tls", "--copy-storage-inc", "--persistent", "--undefinesource"]
        began = time.perf_counter()
        self._virsh(self.host, "migrate", *how, self.id, f"qemu+tls://{to.address}/system", f"tcp://{to.address}")
        seconds = time.perf_counter() - began
        self.host = to
        found = DOWNTIME.search(self._virsh(to, "domjobinfo", "--completed", self.id))
        if found is None:
            raise ValueError("libvirt does not say how long the guest stood still")
        return seconds, float(found[1] or found[2])

    def _make_disk(self, host: Host) -> None:
        self._run(host, "rm", "-rf", str(BARE))
        self._run(host, "install", "-d", "-m", "755", str(BARE))
        self._run(host, *self.create)

    def remove(self) -> None:
        """End it."""
        self._virsh(self.host, "destroy", self.id)
        self._virsh(self.host, "undefine", self.id)

    def _virsh(self, host: Host, *words: str) -> str:
        return self._run(host, "virsh", "--connect", "qemu:///system", *words)

    def _run(self, host: Host, *command: str, input: str | None = None) -> str:
        done = subprocess.run(host.inside(*command), input=input, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} on {host.name}: {done.stderr or done.stdout}")
        return done.stdout


def figures(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> dict[str, Mapping[str, float]]:
    """The medians over the rounds; the ratio of the totals is that of each round."""
    totals = [side[0] for side in ours], [side[0] for side in theirs]
    still = [side[1] for side in ours], [side[1] for side in theirs]
    hostler, bare = (statistics.median(side) for side in still)
    return {
        "total": {
            "hostler_seconds": round(statistics.median(totals[0]), 2),
            "bare_seconds": round(statistics.median(totals[1]), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(*totals, strict=True)), 2),
        },
        "downtime": {"hostler_ms": hostler, "bare_ms": bare, "more_ms": round(hostler - bare, 1)},
    }


@contextmanager
def a_lab() -> Iterator[Site]:
    """Two hosts of the benchmark's own."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)  # QEMU and dnsmasq run as users of their own
        site = Site.choose(Path(name) / "lab", NAME, SUBNET, 2)
        try:
            lab.up(site)
            yield site
        finally:
            lab.down(site)


def run() -> dict[str, Mapping[str, float]]:
    """Measure."""
    with a_lab() as site:
        return asyncio.run(measure(site))
