"""A lab of three hosts of the tests' own, beside one that somebody may have up by hand."""

import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from deploy.lab.control import ROOT
from deploy.lab.host import Host, hosts_of
from deploy.lab.site import Site
from drivers.network import nat
from hostler import Client
from hostler.settings import load
from tests.end_to_end.conftest import DEMO
from tests.lab.guests import is_up, until
from workers.host_identity import FILE

CANDIDATES = [ipaddress.IPv4Network(f"198.18.{number}.0/24") for number in range(100, 250)]
UP_LIMIT = 240
SLOW = "rate 40mbit burst 128kb latency 100ms"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these last: their lab is up until the end, and takes its share of the processors."""
    items.sort(key=lambda item: item.path.is_relative_to(Path(__file__).parent))


def lab(command: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the lab in this directory."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.lab.lab", command, "--directory", str(directory), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=UP_LIMIT,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")},
    )


@dataclass(frozen=True)
class Lab:
    """A lab that is up."""

    site: Site

    def __call__(self, command: str, *arguments: str) -> str:
        """What a command says that succeeds."""
        done = lab(command, self.site.directory, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def hosts(self) -> list[Host]:
        return hosts_of(self.site)

    def traces(self) -> list[str]:
        """What this machine has of the lab."""
        return [*interfaces(self.site), *processes(self.site), *mounts(self.site)]


def interfaces(site: Site) -> list[str]:
    names = [link["ifname"] for link in json.loads(run("ip", "-json", "link"))]
    return [f"interface {name}" for name in names if name.startswith(site.name)]


def processes(site: Site) -> list[str]:
    """Those that name its directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(site.directory) in word for word in process.cmdline()):
                found.append(f"process {process.pid} {process.name()}")
        except psutil.Error:
            continue
    return found


def strangers() -> set[str]:
    """The processes of other machines that this one plays: each has a namespace of process IDs of its own."""
    ours, found = Path("/proc/self/ns/pid").readlink(), set()
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if Path(f"/proc/{process.pid}/ns/pid").readlink() != ours:
                found.add(f"process {process.pid} {process.name()} of another machine")
    return found


def mounts(site: Site) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(site.directory) in line]


def tables(site: Site) -> set[str]:
    """The tables of nftables that are its hosts'. They belong into the hosts' namespaces, none on this machine."""
    return {f"table {nat.table(file.read_text())}" for file in site.directory.glob(f"*/*/state/{FILE}")}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def free_subnets() -> Sequence[ipaddress.IPv4Network]:
    """Subnets to which this machine has no route."""
    shown = [route["dst"] for route in json.loads(run("ip", "-json", "-4", "route"))]
    routes = [ipaddress.IPv4Network(route) for route in shown if route != "default"]
    return [subnet for subnet in CANDIDATES if not any(subnet.overlaps(route) for route in routes)]


@contextmanager
def a_lab(hosts: int, *options: str) -> Iterator[Lab]:
    """A lab of so many hosts. Afterwards nothing is left of it."""
    directory = Path(tempfile.mkdtemp(prefix="hostler-test-", dir="/var/tmp"))
    directory.chmod(0o755)  # QEMU and dnsmasq run as users of their own
    name, subnet = f"hl{uuid4().hex[:6]}", free_subnets()[0]
    site, others, theirs = Site(directory / "lab", name, subnet, hosts), strangers(), set[str]()
    try:
        up = lab("up", site.directory, "--name", name, "--subnet", str(subnet), "--hosts", str(hosts), *options)
        assert up.returncode == 0, up.stdout + up.stderr
        assert strangers() - others
        theirs = tables(site)
        assert len(theirs) == site.hosts
        yield Lab(site)
    finally:
        down = lab("down", site.directory)
        left = [*Lab(site).traces(), *sorted(strangers() - others)]
        shutil.rmtree(directory)
    assert down.returncode == 0, down.stdout + down.stderr
    assert left == []
    assert not site.directory.exists()
    assert theirs.isdisjoint(run("nft", "list", "tables").splitlines())


@pytest.fixture(scope="session")
def the_lab() -> Iterator[Lab]:
    """A lab of three hosts."""
    with a_lab(3) as lab:
        yield lab


@pytest.fixture
async def client(the_lab: Lab) -> AsyncIterator[Client]:
    """The way into the lab's cloud, with a catalogue. Two hosts are given servers. Afterwards it has none of any."""
    async with await Client.connect(load(the_lab.site.config)) as client:
        if not await client.flavors.list():
            await client.flavors.create("tiny", vcpus=1, ram_mib=128)
            await client.networks.create("net", cidr="10.232.8.0/24")
            await client.images.create("demo", DEMO)
            for host in the_lab.hosts[2:]:
                await client.hosts.disable(host.name, reason="what is moved goes from the one to the other")
        yield client
        for server in await client.servers.list():
            await (await client.servers.delete(server.id)).result()
        await client.audit()  # and no host keeps an image of the shelf for ten minutes


@pytest.fixture
def one(the_lab: Lab) -> Host:
    return the_lab.hosts[0]


@pytest.fixture
async def other(the_lab: Lab, client: Client) -> AsyncIterator[Host]:
    """A host that a test may break: in order again before the servers are deleted."""
    host = the_lab.hosts[1]
    yield host
    the_lab("up")
    await until(lambda: is_up(client, host))


@pytest.fixture
async def third(the_lab: Lab, client: Client) -> AsyncIterator[Host]:
    """A host that is given servers only here."""
    host = the_lab.hosts[2]
    await client.hosts.enable(host.name)
    yield host
    await client.hosts.disable(host.name)


@pytest.fixture
def slow(the_lab: Lab, other: Host) -> Iterator[None]:
    """What goes to the other host goes slowly: a guest takes some 20 s."""
    wire = f"{the_lab.site.name}-{other.number}"
    run("tc", "qdisc", "add", "dev", wire, "root", "tbf", *SLOW.split())
    yield
    run("tc", "qdisc", "del", "dev", wire, "root")
