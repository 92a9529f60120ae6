"""Networks that span hosts, for real: two hosts in network namespaces of the test's own, joined by a cable."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from pyroute2 import netns

from drivers.network.local import LocalNetwork
from drivers.network.overlay import Underlay, overlay_name
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name
from tests.drivers.network.conftest import Guest, Network, run, servers_in, succeeds

GROUP = "239.72.83.84"
CABLE, CABLE_MTU = "uplink", 1600
BLUE_VNI, RED_VNI = 4711, 4712
SEND_VXLAN = "echo frame >/dev/udp/{}/4789; echo other >/dev/udp/{}/4790"


@dataclass
class SpanningHost:
    """A host with its driver, whose every call runs in the host's namespace."""

    number: int
    namespace: str
    directory: Path

    def __post_init__(self) -> None:
        self.owner = str(uuid4())
        self.address = f"198.51.100.{self.number}"
        self.guests: list[Guest] = []
        self.use(Underlay(self.address, GROUP))

    def use(self, underlay: Underlay | None) -> None:
        """Go on with a driver that has these settings: the next worker's."""
        self.network = LocalNetwork(self.directory / "network", self.owner, underlay)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For what is done here runs on this host: threads and programs are of the namespace that they start in."""
        netns.pushns(self.namespace)
        try:
            yield
        finally:
            netns.popns()

    async def bind(self, port: PortBinding) -> None:
        with self.inside():
            await self.network.bind(port)

    async def unbind(self, port: PortBinding) -> None:
        with self.inside():
            await self.network.unbind(port.port_id)

    async def restore(self) -> None:
        with self.inside():
            await self.network.restore()

    async def strays(self) -> list[str]:
        with self.inside():
            return await self.network.strays()

    async def start(self, port: PortBinding) -> Guest:
        """A guest on this host, plugged into the port."""
        await self.bind(port)
        with self.inside():
            guest = Guest(port)
            self.guests.append(guest)
            guest.plug()
        return guest

    def run(self, *command: str) -> str:
        return run(*command, namespace=self.namespace)

    async def close(self) -> None:
        """Unbind all ports, after which nothing is left."""
        with self.inside():
            for port in await self.network.ports():
                await self.network.unbind(port.port_id)
            await self.network.close()
        for guest in self.guests:
            guest.close()
        assert servers_in(self.directory) == []
        links = self.run("ip", "link")
        assert "brh" not in links
        assert "vxh" not in links
        assert "hostler" not in self.run("nft", "list", "tables")


@pytest.fixture
async def hosts() -> AsyncIterator[list[SpanningHost]]:
    """Two hosts, at 198.51.100.1 and .2, with a cable between them."""
    directory = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    run("chmod", "755", str(directory))  # dnsmasq's user gets through
    names = [f"host-{uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        netns.create(name)
        run("ip", "link", "set", "lo", "up", namespace=name)
    hosts = [SpanningHost(number, name, directory / str(number)) for number, name in enumerate(names, 1)]
    peer = ["peer", "name", CABLE, "mtu", str(CABLE_MTU), "netns", names[1]]
    run("ip", "link", "add", CABLE, "mtu", str(CABLE_MTU), "netns", names[0], "type", "veth", *peer)
    for host in hosts:
        host.run("ip", "addr", "add", f"{host.address}/24", "dev", CABLE)
        host.run("ip", "link", "set", CABLE, "up")
    yield hosts
    for host in hosts:
        await host.close()
    for name in names:
        netns.remove(name)
    shutil.rmtree(directory)


@pytest.fixture
def one(hosts: list[SpanningHost]) -> SpanningHost:
    return hosts[0]


@pytest.fixture
def other(hosts: list[SpanningHost]) -> SpanningHost:
    return hosts[1]


@pytest.fixture
def blue() -> Network:
    return Network(1)


def on(network: Network, host: int, **changes: object) -> PortBinding:
    """A port of the network, which spans hosts."""
    return network.port(host, **{"vni": BLUE_VNI, **changes})


def reaches(guest: Guest, address: str) -> bool:
    """Whether it gets an answer after a while: who asked in vain before asks again only after a second."""
    return succeeds("ping", "-c", "1", "-w", "5", address, namespace=guest.namespace)


def reboot(host: SpanningHost, network: Network) -> None:
    """Take what a reboot takes: all but files."""
    server = psutil.Process(int((host.directory / "network" / "dhcp" / network.id / "pid").read_text()))
    server.kill()
    server.wait()
    host.run("ip", "link", "del", overlay_name(network.id))
    host.run("ip", "link", "del", bridge_name(network.id))
    host.run("nft", "flush", "ruleset")


class TestBind:
    async def test_guests_of_a_network_on_two_hosts_reach_each_other(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(on(blue, 10)), await other.start(on(blue, 11))
        assert here.ask_dhcp(tmp_path)["ip"] == "10.77.1.10"
        assert there.ask_dhcp(tmp_path)["ip"] == "10.77.1.11"
        assert here.pings("10.77.1.11")
        assert there.pings("10.77.1.10")

    async def test_the_largest_packets_arrive_whole(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        mtu = CABLE_MTU - 50
        here, there = await one.start(on(blue, 10, mtu=mtu)), await other.start(on(blue, 11, mtu=mtu))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)["mtu"] == str(mtu)
            run("ip", "link", "set", "eth0", "mtu", str(mtu), namespace=guest.namespace)
            with (one if guest is here else other).inside():
                run("ip", "link", "set", guest.tap, "mtu", str(mtu))
        whole = ["ping", "-c", "1", "-W", "1", "-M", "do", "-s", str(mtu - 28), "10.77.1.11"]
        assert "1 received" in run(*whole, namespace=here.namespace)

    async def test_networks_are_closed_to_each_other(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here = await one.start(on(blue, 10))
        there = await other.start(on(Network(1), 11, vni=RED_VNI))
        assert here.ask_dhcp(tmp_path)
        assert there.ask_dhcp(tmp_path)
        assert not here.pings("10.77.1.11")

    async def test_a_guest_that_moved_is_found_at_its_new_host(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        stays, moves = await one.start(on(blue, 10)), on(blue, 11)
        before = await one.start(moves)
        for guest in (stays, before):
            assert guest.ask_dhcp(tmp_path)
        assert stays.pings(moves.ip)
        with one.inside():
            before.unplug()
        before.close()
        one.guests.remove(before)
        await one.unbind(moves)
        after = await other.start(moves)
        assert after.ask_dhcp(tmp_path)["ip"] == moves.ip
        assert after.pings(stays.port.ip)
        assert stays.pings(moves.ip)

    async def test_again_changes_nothing(self, one: SpanningHost, blue: Network) -> None:
        port = on(blue, 10)
        await one.bind(port)
        before = (one.run("ip", "addr"), one.run("nft", "list", "ruleset"))
        await one.bind(port)
        assert (one.run("ip", "addr"), one.run("nft", "list", "ruleset")) == before

    async def test_the_device(self, one: SpanningHost, blue: Network) -> None:
        await one.bind(on(blue, 10))
        shown = one.run("ip", "-d", "link", "show", overlay_name(blue.id))
        for part in (f"vxlan id {BLUE_VNI} ", f"group {GROUP} ", f"local {one.address} ", "dstport 4789", "mtu 1450"):
            assert part in shown
        assert f"master {bridge_name(blue.id)}" in shown

    @pytest.mark.parametrize("what", ["removed", "down", "out of the bridge", "another VNI"])
    async def test_what_somebody_changed_is_put_right(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path, what: str
    ) -> None:
        here, there = await one.start(on(blue, 10)), await other.start(on(blue, 11))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
        device = overlay_name(blue.id)
        match what:
            case "removed":
                one.run("ip", "link", "del", device)
            case "down":
                one.run("ip", "link", "set", device, "down")
            case "out of the bridge":
                one.run("ip", "link", "set", device, "nomaster")
            case _:
                one.run("ip", "link", "del", device)
                one.run("ip", "link", "add", device, "type", "vxlan", "id", "99", "dev", CABLE, "dstport", "4789")
        assert not here.pings(there.port.ip)
        await one.bind(here.port)
        assert reaches(here, there.port.ip)


class TestGateway:
    async def test_dhcp_is_answered_by_the_own_host_only(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        port = on(blue, 10)
        await other.bind(port)  # as while a guest moves: both hosts would know it
        guest = await one.start(port)
        assert guest.ask_dhcp(tmp_path)["ip"] == port.ip
        await one.network.close()  # nobody starts its server again
        server = psutil.Process(int((one.directory / "network" / "dhcp" / blue.id / "pid").read_text()))
        server.kill()
        server.wait()
        assert guest.ask_dhcp(tmp_path) == {}
        one.use(Underlay(one.address, GROUP))

    async def test_the_gateway_is_the_own_host_only(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(on(blue, 10)), await other.start(on(blue, 11))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
            assert guest.pings("10.77.1.1")
        one.run("ip", "addr", "flush", "dev", bridge_name(blue.id))
        assert here.pings(there.port.ip)
        assert not here.pings("10.77.1.1")
        assert there.pings("10.77.1.1")

    async def test_no_guest_elsewhere_passes_for_it(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(on(blue, 10)), await other.start(on(blue, 11))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
        one.run("ip", "addr", "flush", "dev", bridge_name(blue.id))
        run("ip", "addr", "add", "10.77.1.1/24", "dev", "eth0", namespace=there.namespace)
        assert here.pings(there.port.ip)
        assert not here.pings("10.77.1.1")

    async def test_no_guest_speaks_vxlan_to_a_host(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        guest = await one.start(on(blue, 10))
        assert guest.ask_dhcp(tmp_path)
        other.run("nft", "add table inet look; add chain inet look in { type filter hook input priority -10; }")
        for port in (4789, 4790):
            other.run("nft", f"add rule inet look in udp dport {port} counter")
        run("bash", "-c", SEND_VXLAN.format(other.address, other.address), namespace=guest.namespace)
        seen = other.run("nft", "list", "table", "inet", "look")
        assert "udp dport 4790 counter packets 1 " in seen, "NAT lets all else through"
        assert "udp dport 4789 counter packets 0 " in seen


class TestRefusals:
    async def test_an_address_that_no_interface_has(self, one: SpanningHost, blue: Network) -> None:
        one.use(Underlay("198.51.100.77", GROUP))
        with pytest.raises(RescheduleError, match=r"no interface of this host has .* 198\.51\.100\.77") as refusal:
            await one.bind(on(blue, 10))
        assert refusal.value.remedy == "see that the interface is there, or correct host.overlay_address"

    async def test_packets_that_the_underlay_does_not_carry(self, one: SpanningHost, blue: Network) -> None:
        with pytest.raises(RescheduleError, match="1551 bytes, and the overlay over uplink carries 1550") as refusal:
            await one.bind(on(blue, 10, mtu=1551))
        assert refusal.value.remedy == (
            "raise the MTU of uplink to 1601 on all hosts, or use a network that was made with --mtu 1550"
        )

    async def test_a_vni_that_is_in_use_for_something_else(self, one: SpanningHost, blue: Network) -> None:
        one.run("ip", "link", "add", "theirs", "type", "vxlan", "id", str(BLUE_VNI), "dev", CABLE, "dstport", "4789")
        with pytest.raises(RescheduleError, match=f"VNI {BLUE_VNI} of network net1 is in use on this host"):
            await one.bind(on(blue, 10))
        one.run("ip", "link", "del", "theirs")

    async def test_a_group_that_is_none(self, one: SpanningHost, blue: Network) -> None:
        one.use(Underlay(one.address, "nonsense"))
        with pytest.raises(RescheduleError, match="the overlay of network net1 cannot be made") as refusal:
            await one.bind(on(blue, 10))
        assert "host.overlay_group" in (refusal.value.remedy or "")


class TestOfOneHost:
    async def test_a_network_without_a_vni(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(blue.port(10)), await other.start(blue.port(11))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
        assert not here.pings(there.port.ip)
        assert "vxh" not in one.run("ip", "link")

    async def test_it_spans_hosts_as_soon_as_one_port_says_so(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(blue.port(10)), await other.start(on(blue, 11))
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
        await one.bind(on(blue, 12))
        assert reaches(here, there.port.ip)

    async def test_a_host_without_an_underlay(self, one: SpanningHost, blue: Network) -> None:
        one.use(None)
        await one.bind(on(blue, 10))
        assert "vxh" not in one.run("ip", "link")
        assert "table bridge" not in one.run("nft", "list", "tables")


class TestUnbind:
    async def test_the_last_port_takes_the_overlay_with_it(self, one: SpanningHost, blue: Network) -> None:
        ports, red = [on(blue, 10), on(blue, 11)], Network(2)
        for port in (*ports, on(red, 10, vni=RED_VNI)):
            await one.bind(port)
        await one.unbind(ports[0])
        assert overlay_name(blue.id) in one.run("ip", "link")
        await one.unbind(ports[1])
        assert overlay_name(blue.id) not in one.run("ip", "link")
        rules = one.run("nft", "list", "ruleset")
        assert overlay_name(blue.id) not in rules
        assert overlay_name(red.id) in rules


class TestRestore:
    async def test_after_a_reboot_everything_works_as_before(
        self, one: SpanningHost, other: SpanningHost, blue: Network, tmp_path: Path
    ) -> None:
        here, there = await one.start(on(blue, 10)), await other.start(on(blue, 11))
        await one.network.close()
        with one.inside():
            here.unplug()
        reboot(one, blue)
        one.use(Underlay(one.address, GROUP))
        await one.restore()
        with one.inside():
            here.plug()
        for guest in (here, there):
            assert guest.ask_dhcp(tmp_path)
        assert here.pings(there.port.ip)
        assert "table bridge" in one.run("nft", "list", "tables")

    async def test_without_the_underlay_the_network_works_by_itself_and_the_log_says_so(
        self, one: SpanningHost, blue: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        here = await one.start(on(blue, 10))
        await one.network.close()
        with one.inside():
            here.unplug()
        reboot(one, blue)
        one.use(Underlay("198.51.100.77", GROUP))
        await one.restore()
        assert f"network net1 ({blue.id}) is not joined to that of other hosts: no interface" in caplog.text
        with one.inside():
            here.plug()
        assert here.ask_dhcp(tmp_path)
        assert here.pings("10.77.1.1")

    async def test_a_worker_that_has_no_underlay_any_more_parts_it(self, one: SpanningHost, blue: Network) -> None:
        await one.bind(on(blue, 10))
        await one.network.close()
        one.use(None)
        await one.restore()
        assert "vxh" not in one.run("ip", "link")
        assert "table bridge" not in one.run("nft", "list", "tables")


class TestStrays:
    async def test_a_device_of_this_host_s_that_has_no_port(self, one: SpanningHost, blue: Network) -> None:
        await one.bind(on(blue, 10))
        assert await one.strays() == []
        stray = ["ip", "link", "add", "vxhstray", "type", "vxlan", "id", "99", "dev", CABLE, "dstport", "4789"]
        one.run(*stray)
        assert await one.strays() == [], "another cloud's, perhaps"
        one.run("ip", "link", "set", "vxhstray", "alias", f"hostler {one.owner}")
        assert await one.strays() == ["vxhstray"]
        one.run("ip", "link", "del", "vxhstray")
