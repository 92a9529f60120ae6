"""A host's network in a namespace of the test's own, guests in others, and the outside world in one more."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pyroute2 import netns

from drivers.network.local import LocalNetwork
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name, tap_name

OWNER, OTHER_OWNER = "0c1d2e3f-0000-4000-8000-000000000001", "deadbeef-0000-4000-8000-000000000002"
OUTSIDE_ADDRESS = "198.51.100.2"
UDHCPC_SCRIPT = """\
#!/bin/sh
if [ "$1" = bound ]; then
    env > "$LEASE"
    ip addr add "$ip/$mask" dev "$interface"
    ip route add default via "$router"
fi
"""


def run(*command: str, namespace: str | None = None, check: bool = True) -> str:
    """What a command says, in this or another network namespace."""
    where = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run([*where, *command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout


def succeeds(*command: str, namespace: str | None = None) -> bool:
    """Whether a command succeeds there."""
    where = ["ip", "netns", "exec", namespace] if namespace else []
    return subprocess.run([*where, *command], capture_output=True, timeout=30).returncode == 0


@pytest.fixture
def host() -> Iterator[str]:
    """The namespace of the host, in which the test itself runs. It reaches 198.51.100.2, which is outside."""
    inside, outside = (f"{role}-{uuid4().hex[:8]}" for role in ("host", "outside"))
    for name in (inside, outside):
        netns.create(name)
        run("ip", "link", "set", "lo", "up", namespace=name)
    run("ip", "link", "add", "uplink", "netns", inside, "type", "veth", "peer", "name", "eth0", "netns", outside)
    for name, device, address in ((inside, "uplink", "198.51.100.1"), (outside, "eth0", OUTSIDE_ADDRESS)):
        run("ip", "addr", "add", f"{address}/24", "dev", device, namespace=name)
        run("ip", "link", "set", device, "up", namespace=name)
    netns.pushns(inside)
    yield inside
    netns.popns()
    for name in (inside, outside):
        netns.remove(name)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that dnsmasq's user gets through, as it would through /var/lib."""
    path = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    path.chmod(0o755)
    yield path / "network"
    shutil.rmtree(path)


@pytest.fixture
async def network(host: str, directory: Path) -> AsyncIterator[LocalNetwork]:
    """The driver on that host. After the test, unbinding all ports leaves nothing."""
    network = LocalNetwork(directory, OWNER)
    yield network
    await network.close()
    successor = LocalNetwork(directory, OWNER)
    for port in await successor.ports():
        await successor.unbind(port.port_id)
    await successor.close()
    assert servers_in(directory) == []
    assert "brh" not in run("ip", "link")
    assert "hostler" not in run("nft", "list", "tables")


def servers_in(directory: Path) -> list[str]:
    """The command lines of all dnsmasq processes whose files are there."""
    lines = run("ps", "-eo", "stat,args").splitlines()
    return [line for line in lines if f"{directory}/" in line and "dnsmasq" in line and line[0] != "Z"]


@dataclass
class Network:
    """A tenant's network, and how to make ports on it."""

    number: int

    def __post_init__(self) -> None:
        self.id = str(uuid4())

    def port(self, host: int, **changes: object) -> PortBinding:
        """The port whose address ends in `host`."""
        port = PortBinding(
            port_id=str(uuid4()),
            server_id=str(uuid4()),
            network_id=self.id,
            network=f"net{self.number}",
            mac=f"52:54:00:00:{self.number:02x}:{host:02x}",
            ip=f"10.77.{self.number}.{host}",
            prefix=24,
            gateway=f"10.77.{self.number}.1",
            dns=["192.0.2.53", "192.0.2.54"],
            mtu=1450,
            hostname=f"vm-{host}",
        )
        return port.model_copy(update=changes)


class Guest:
    """A guest's end of a port: a namespace whose eth0 is the other end of the port's tap."""

    def __init__(self, port: PortBinding) -> None:
        self.port = port
        self.tap = tap_name(port.port_id)
        self.namespace = f"guest-{port.port_id[:8]}"
        netns.create(self.namespace)

    def plug(self) -> None:
        """What a hypervisor does when it starts the guest."""
        peer = ["peer", "name", "eth0", "address", self.port.mac, "netns", self.namespace]
        run("ip", "link", "add", self.tap, "type", "veth", *peer)
        run("ip", "link", "set", self.tap, "master", bridge_name(self.port.network_id), "up")
        run("ip", "link", "set", "eth0", "up", namespace=self.namespace)

    def unplug(self) -> None:
        """What a hypervisor does when it stops the guest."""
        run("ip", "link", "del", self.tap)

    def ask_dhcp(self, scratch: Path) -> dict[str, str]:
        """What udhcpc was told, after it has configured eth0; empty when nobody answered."""
        script, lease = scratch / "script", scratch / f"lease-{self.namespace}"
        script.write_text(UDHCPC_SCRIPT)
        script.chmod(0o755)
        run("ip", "addr", "flush", "dev", "eth0", namespace=self.namespace)
        ask = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "4", "-T", "1", "-s", str(script)]
        lease.unlink(missing_ok=True)
        run("env", f"LEASE={lease}", *ask, "-O", "mtu", namespace=self.namespace, check=False)
        if not lease.exists():
            return {}
        return dict(line.split("=", 1) for line in lease.read_text().splitlines() if "=" in line)

    def pings(self, address: str) -> bool:
        """Whether it gets an answer."""
        return succeeds("ping", "-c", "1", "-W", "1", address, namespace=self.namespace)

    def close(self) -> None:
        """Remove the namespace."""
        netns.remove(self.namespace)


class Guests:
    """Guests that are removed after the test."""

    def __init__(self) -> None:
        self._guests: list[Guest] = []

    def start(self, port: PortBinding) -> Guest:
        """A guest, plugged."""
        guest = Guest(port)
        self._guests.append(guest)
        guest.plug()
        return guest

    def close(self) -> None:
        """Remove them."""
        for guest in self._guests:
            guest.close()


@pytest.fixture
def guests(host: str) -> Iterator[Guests]:
    guests = Guests()
    yield guests
    guests.close()
