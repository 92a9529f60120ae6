"""A host's network for real: bridges, dnsmasq and nftables in network namespaces, with DHCP clients and pings."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from drivers.network import links as links_module
from drivers.network.base import Plugged
from drivers.network.local import LocalNetwork
from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name, tap_name
from tests.drivers.network.conftest import (
    OTHER_OWNER,
    OUTSIDE_ADDRESS,
    OWNER,
    Guests,
    Network,
    run,
    servers_in,
    succeeds,
)
from tests.drivers.observing import names, until


@pytest.fixture
def blue() -> Network:
    return Network(1)


@pytest.fixture
def red() -> Network:
    return Network(2)


def leases(directory: Path, network: Network) -> str:
    return (directory / "dhcp" / network.id / "leases").read_text()


async def lease(network: LocalNetwork, guests: Guests, directory: Path, *ports: PortBinding) -> None:
    """Bind the ports, and let a guest at each ask for its address, which it must get."""
    for port in ports:
        await network.bind(port)
        assert guests.start(port).ask_dhcp(directory)["ip"] == port.ip


def pid_of_dhcp(directory: Path, network: Network) -> int:
    return int((directory / "dhcp" / network.id / "pid").read_text())


async def kill_dhcp(directory: Path, network: Network) -> None:
    """SIGKILL; returns when it has ended. One that was just started has yet to say who it is."""
    await until((directory / "dhcp" / network.id / "pid").exists)
    server = psutil.Process(pid_of_dhcp(directory, network))
    server.kill()
    server.wait()


async def rebooted(worker: LocalNetwork, directory: Path, *networks: Network) -> LocalNetwork:
    """The next worker's driver, after the machine went down with the worker."""
    await worker.close()
    await reboot(directory, *networks)
    return LocalNetwork(directory, OWNER)


async def reboot(directory: Path, *networks: Network) -> None:
    """Take what a reboot takes: all but files."""
    for network in networks:
        await kill_dhcp(directory, network)
        run("ip", "link", "del", bridge_name(network.id))
    run("nft", "flush", "ruleset")
    run("sysctl", "-w", "net.ipv4.ip_forward=0")


class TestBind:
    async def test_the_guest_gets_its_address_by_dhcp_and_reaches_its_gateway(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        guest = guests.start(port)
        lease = guest.ask_dhcp(tmp_path)
        assert lease["ip"] == "10.77.1.10"
        assert lease["mask"] == "24"
        assert lease["router"] == "10.77.1.1"
        assert lease["dns"] == "192.0.2.53 192.0.2.54"
        assert lease["mtu"] == "1450"
        assert lease["hostname"] == "vm-10"
        assert guest.pings("10.77.1.1")

    async def test_the_bridge(self, network: LocalNetwork, blue: Network, guests: Guests) -> None:
        await network.bind(blue.port(10))
        shown = run("ip", "-d", "link", "show", bridge_name(blue.id))
        for part in ("mtu 1450", "stp_state 0", "forward_delay 0", ",UP", f"0a:{blue.id[:2]}:{blue.id[2:4]}"):
            assert part in shown

    async def test_guests_of_a_network_reach_each_other_and_the_outside(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path
    ) -> None:
        ports = [blue.port(10), blue.port(11)]
        for port in ports:
            await network.bind(port)
        first, second = (guests.start(port) for port in ports)
        first.ask_dhcp(tmp_path)
        second.ask_dhcp(tmp_path)
        assert first.pings("10.77.1.11")
        assert first.pings(OUTSIDE_ADDRESS), "the outside has no route back: only NAT lets it answer"

    async def test_networks_are_closed_to_each_other(
        self, network: LocalNetwork, blue: Network, red: Network, guests: Guests, tmp_path: Path
    ) -> None:
        ports = [blue.port(10), red.port(10)]
        for port in ports:
            await network.bind(port)
        first, second = (guests.start(port) for port in ports)
        assert first.ask_dhcp(tmp_path)
        assert second.ask_dhcp(tmp_path)
        assert not first.pings("10.77.2.10")
        assert first.pings(OUTSIDE_ADDRESS)
        assert second.pings(OUTSIDE_ADDRESS)

    async def test_a_guest_reaches_no_service_of_its_host(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        guest = guests.start(port)
        guest.ask_dhcp(tmp_path)
        with socket.create_server(("0.0.0.0", 7233)):
            knock = ["timeout", "1", "bash", "-c"]
            assert succeeds(*knock, "</dev/tcp/10.77.1.1/7233"), "the host itself reaches it"
            for address in ("10.77.1.1", "198.51.100.1"):
                assert not succeeds(*knock, f"</dev/tcp/{address}/7233", namespace=guest.namespace)

    async def test_a_stranger_gets_no_address(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path
    ) -> None:
        await network.bind(blue.port(10))
        assert guests.start(blue.port(99)).ask_dhcp(tmp_path) == {}

    async def test_a_port_bound_later_is_served_by_the_same_server(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        await network.bind(blue.port(10))
        server = pid_of_dhcp(directory, blue)
        port = blue.port(11)
        await network.bind(port)
        assert guests.start(port).ask_dhcp(tmp_path)["ip"] == "10.77.1.11"
        assert pid_of_dhcp(directory, blue) == server

    async def test_again_changes_nothing(self, network: LocalNetwork, blue: Network, directory: Path) -> None:
        port = blue.port(10)
        await network.bind(port)
        before = (run("ip", "addr"), run("nft", "list", "ruleset"), pid_of_dhcp(directory, blue))
        await network.bind(port)
        assert (run("ip", "addr"), run("nft", "list", "ruleset"), pid_of_dhcp(directory, blue)) == before

    async def test_a_dead_dhcp_server_is_started_again(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        await kill_dhcp(directory, blue)
        await network.bind(port)
        assert guests.start(port).ask_dhcp(tmp_path)["ip"] == port.ip

    async def test_a_dhcp_server_that_dies_is_started_again_by_itself(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        for _ in range(2):
            await kill_dhcp(directory, blue)
            await until(lambda: servers_in(directory) != [])
        assert guests.start(port).ask_dhcp(tmp_path)["ip"] == port.ip

    async def test_a_dhcp_server_of_before_the_worker_is_started_again_too(
        self, network: LocalNetwork, blue: Network, directory: Path
    ) -> None:
        await network.bind(blue.port(10))
        await network.close()
        successor = LocalNetwork(directory, OWNER)
        await successor.restore()
        await kill_dhcp(directory, blue)
        await until(lambda: servers_in(directory) != [])
        await successor.close()

    async def test_what_somebody_removed_is_made_again(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        run("ip", "link", "del", bridge_name(blue.id))
        run("nft", "flush", "ruleset")
        await network.bind(port)
        guest = guests.start(port)
        assert guest.ask_dhcp(tmp_path)["ip"] == port.ip
        assert guest.pings(OUTSIDE_ADDRESS)

    async def test_it_survives_the_worker(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        first, second = blue.port(10), blue.port(11)
        await network.bind(first)
        server = pid_of_dhcp(directory, blue)
        successor = LocalNetwork(directory, OWNER)
        assert await successor.ports() == [first]
        await successor.bind(second)
        assert pid_of_dhcp(directory, blue) == server
        for port in (first, second):
            assert guests.start(port).ask_dhcp(tmp_path)["ip"] == port.ip
        await successor.unbind(second.port_id)
        await successor.close()

    async def test_many_at_once(self, network: LocalNetwork, blue: Network, red: Network) -> None:
        ports = [net.port(host) for net in (blue, red) for host in range(10, 20)]
        await asyncio.gather(*(network.bind(port) for port in ports))
        assert len(await network.ports()) == len(ports)
        await asyncio.gather(*(network.unbind(port.port_id) for port in ports))
        assert await network.ports() == []

    @pytest.mark.parametrize("hostname", ["", "-evil", "a,b", "line\nbreak", "x" * 64])
    async def test_a_hostname_that_is_none_is_left_out(
        self, network: LocalNetwork, blue: Network, guests: Guests, tmp_path: Path, hostname: str
    ) -> None:
        port = blue.port(10, hostname=hostname, dns=[])
        await network.bind(port)
        lease = guests.start(port).ask_dhcp(tmp_path)
        assert lease["ip"] == port.ip
        assert "hostname" not in lease
        assert "dns" not in lease


class TestRefuses:
    async def test_a_subnet_that_another_network_here_uses(self, network: LocalNetwork, blue: Network) -> None:
        await network.bind(blue.port(10))
        with pytest.raises(RescheduleError, match="overlaps with that of network net1"):
            await network.bind(Network(1).port(11))
        assert len(await network.ports()) == 1

    async def test_a_subnet_that_the_host_itself_is_in(self, network: LocalNetwork, blue: Network) -> None:
        inside = blue.port(10, ip="198.51.100.77", gateway="198.51.100.65", prefix=26)
        with pytest.raises(RescheduleError, match="by uplink"):
            await network.bind(inside)
        assert await network.ports() == []

    @pytest.mark.parametrize("tool", ["dnsmasq", "nft"])
    async def test_a_host_without_its_tools_and_undoes_the_half_that_was_done(
        self, network: LocalNetwork, blue: Network, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for other in {"dnsmasq", "nft"} - {tool}:
            (tmp_path / other).symlink_to(f"/usr/sbin/{other}")
        port = blue.port(10)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            with pytest.raises(RescheduleError, match=f"{tool} is not installed"):
                await network.bind(port)
        assert bridge_name(blue.id) in run("ip", "link")
        await network.unbind(port.port_id)
        assert bridge_name(blue.id) not in run("ip", "link")

    async def test_a_directory_that_dnsmasq_cannot_get_through(
        self, network: LocalNetwork, blue: Network, directory: Path
    ) -> None:
        directory.parent.chmod(0o700)
        with pytest.raises(RescheduleError, match="cannot get through") as caught:
            await network.bind(blue.port(10))
        assert str(directory.parent) in str(caught.value.remedy)

    async def test_an_id_that_is_a_path(self, network: LocalNetwork, blue: Network) -> None:
        with pytest.raises(InvalidRequest):
            await network.bind(blue.port(10, port_id="../evil"))


class TestUnbind:
    async def test_the_last_port_takes_everything_with_it(
        self, network: LocalNetwork, blue: Network, red: Network, directory: Path
    ) -> None:
        ports = [blue.port(10), blue.port(11), red.port(10)]
        for port in ports:
            await network.bind(port)
        await network.unbind(ports[0].port_id)
        assert bridge_name(blue.id) in run("ip", "link")
        await network.unbind(ports[1].port_id)
        assert bridge_name(blue.id) not in run("ip", "link")
        assert bridge_name(blue.id) not in run("nft", "list", "ruleset")
        assert names(directory / "dhcp") == [red.id]
        assert len(servers_in(directory)) == 1
        assert bridge_name(red.id) in run("nft", "list", "ruleset")
        await network.unbind(ports[2].port_id)
        assert names(directory / "ports") == []

    async def test_may_be_repeated_or_never_have_been_bound(self, network: LocalNetwork, blue: Network) -> None:
        port = blue.port(10)
        await network.unbind(port.port_id)
        await network.bind(port)
        await network.unbind(port.port_id)
        await network.unbind(port.port_id)

    async def test_leaves_no_lease_so_that_the_address_is_free_at_once(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        await lease(network, guests, tmp_path, stays, goes)
        server = pid_of_dhcp(directory, blue)
        assert goes.mac in leases(directory, blue)
        await network.unbind(goes.port_id)
        assert goes.mac not in leases(directory, blue)
        assert stays.mac in leases(directory, blue)
        assert pid_of_dhcp(directory, blue) == server, "the others were served all the time"
        await lease(network, guests, tmp_path, blue.port(12, ip=goes.ip))

    async def test_leaves_no_lease_when_the_server_was_about_to_write_them(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        await lease(network, guests, tmp_path, stays, goes)
        server = psutil.Process(pid_of_dhcp(directory, blue))
        server.suspend()
        os.truncate(directory / "dhcp" / blue.id / "leases", 0)  # as it does before it writes
        await network.unbind(goes.port_id)
        server.resume()
        await lease(network, guests, tmp_path, blue.port(12, ip=goes.ip))
        assert goes.mac not in leases(directory, blue)
        assert stays.mac in leases(directory, blue)

    async def test_a_server_that_does_not_start_again_is_tried_again(
        self, network: LocalNetwork, blue: Network, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        for port in (stays, goes):
            await network.bind(port)
        with monkeypatch.context() as full:
            full.setattr("drivers.network.dhcp.Daemon.start", lambda *_: "no memory")
            await kill_dhcp(directory, blue)
            await network.unbind(goes.port_id)
            assert servers_in(directory) == []
        await until(lambda: len(servers_in(directory)) == 1)

    async def test_leaves_no_lease_when_the_server_was_dead(
        self, network: LocalNetwork, blue: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        await lease(network, guests, tmp_path, stays, goes)
        await kill_dhcp(directory, blue)
        await network.unbind(goes.port_id)
        assert goes.mac not in leases(directory, blue)
        assert stays.mac in leases(directory, blue)

    async def test_works_without_dhcp_release(
        self,
        network: LocalNetwork,
        blue: Network,
        guests: Guests,
        directory: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        for port in (stays, goes):
            await network.bind(port)
        assert guests.start(goes).ask_dhcp(tmp_path)
        for tool in ("dnsmasq", "nft"):
            (tmp_path / tool).symlink_to(f"/usr/sbin/{tool}")
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            await network.unbind(goes.port_id)
        assert goes.mac not in leases(directory, blue)

    @pytest.mark.parametrize("missing", ["bridge", "server", "rules", "all"])
    async def test_one_of_several_goes_whatever_is_missing(
        self,
        network: LocalNetwork,
        blue: Network,
        guests: Guests,
        directory: Path,
        tmp_path: Path,
        missing: str,
    ) -> None:
        stays, goes = blue.port(10), blue.port(11)
        for port in (stays, goes):
            await network.bind(port)
        assert guests.start(goes).ask_dhcp(tmp_path)
        if missing == "bridge":
            run("ip", "link", "del", bridge_name(blue.id))
        elif missing == "server":
            await kill_dhcp(directory, blue)
        elif missing == "rules":
            run("nft", "flush", "ruleset")
        else:
            await reboot(directory, blue)
        await network.unbind(goes.port_id)
        assert await network.ports() == [stays]
        assert goes.mac not in leases(directory, blue)
        heir = blue.port(12, ip=goes.ip)
        await network.bind(heir)
        guest = guests.start(heir)
        assert guest.ask_dhcp(tmp_path)["ip"] == goes.ip
        assert guest.pings(OUTSIDE_ADDRESS)

    async def test_all_go_after_a_reboot(
        self, network: LocalNetwork, blue: Network, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        ports = [blue.port(10), blue.port(11), blue.port(12)]
        for port in ports:
            await network.bind(port)
        await reboot(directory, blue)
        for port in ports:
            await network.unbind(port.port_id)
        assert await network.ports() == []
        assert "the other ports of network net1 are not served: dnsmasq does not start" in caplog.text


class TestRestore:
    async def test_after_a_reboot_everything_works_as_before(
        self, network: LocalNetwork, blue: Network, red: Network, guests: Guests, directory: Path, tmp_path: Path
    ) -> None:
        ports = [blue.port(10), blue.port(11), red.port(10)]
        for port in ports:
            await network.bind(port)
        successor = await rebooted(network, directory, blue, red)
        await successor.restore()
        await successor.close()
        started = [guests.start(port) for port in ports]
        for guest in started:
            assert guest.ask_dhcp(tmp_path)["ip"] == guest.port.ip
            assert guest.pings(OUTSIDE_ADDRESS)
        assert started[0].pings(ports[1].ip)
        assert not started[0].pings(ports[2].ip)

    async def test_changes_nothing_when_the_machine_was_not_rebooted(
        self, network: LocalNetwork, blue: Network, directory: Path
    ) -> None:
        await network.bind(blue.port(10))
        before = (run("ip", "addr"), run("nft", "list", "ruleset"), pid_of_dhcp(directory, blue))
        await network.restore()
        assert (run("ip", "addr"), run("nft", "list", "ruleset"), pid_of_dhcp(directory, blue)) == before

    async def test_without_any_ports(self, network: LocalNetwork) -> None:
        await network.restore()

    async def test_a_network_whose_subnet_is_taken_now_is_logged_and_the_others_work(
        self,
        network: LocalNetwork,
        blue: Network,
        red: Network,
        guests: Guests,
        directory: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        taken, fine = blue.port(10), red.port(10)
        for port in (taken, fine):
            await network.bind(port)
        successor = await rebooted(network, directory, blue, red)
        run("ip", "addr", "add", "10.77.1.200/24", "dev", "uplink")
        await successor.restore()
        assert f"network net1 ({blue.id}) is not restored: subnet 10.77.1.0/24" in caplog.text
        assert "by uplink" in caplog.text
        assert bridge_name(blue.id) not in run("ip", "link")
        assert "10.77.1.0" not in run("nft", "list", "ruleset"), "what the host itself says must not be translated"
        guest = guests.start(fine)
        assert guest.ask_dhcp(tmp_path)["ip"] == fine.ip
        assert guest.pings(OUTSIDE_ADDRESS)
        await successor.unbind(taken.port_id)
        assert await successor.ports() == [fine]
        await successor.close()

    @pytest.mark.parametrize("tool", ["dnsmasq", "nft"])
    async def test_what_a_missing_tool_prevents_is_logged(
        self,
        network: LocalNetwork,
        blue: Network,
        directory: Path,
        tool: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        for other in {"dnsmasq", "nft"} - {tool}:
            (tmp_path / other).symlink_to(f"/usr/sbin/{other}")
        await network.bind(blue.port(10))
        successor = await rebooted(network, directory, blue)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            await successor.restore()
        await successor.close()
        assert f"is not restored: {tool} is not installed on this host (install the package" in caplog.text
        assert bridge_name(blue.id) in run("ip", "link")

    async def test_what_nobody_foresaw_is_logged_with_its_trace(
        self,
        network: LocalNetwork,
        blue: Network,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await network.bind(blue.port(10))
        (directory / "dhcp" / blue.id / "hosts").unlink()
        (directory / "dhcp" / blue.id / "hosts").mkdir()
        await network.restore()
        assert "is not restored\n" in caplog.text
        assert "Traceback" in caplog.text


class TestTwoOwners:
    """Two clouds whose hosts are one machine."""

    @pytest.fixture
    async def other(self, network: LocalNetwork, directory: Path) -> AsyncIterator[LocalNetwork]:
        other = LocalNetwork(directory.parent / "other", OTHER_OWNER)
        yield other
        for port in await other.ports():
            await other.unbind(port.port_id)
        await other.close()

    async def test_each_has_rules_of_its_own(
        self,
        network: LocalNetwork,
        other: LocalNetwork,
        blue: Network,
        red: Network,
        guests: Guests,
        tmp_path: Path,
    ) -> None:
        ours, theirs = blue.port(10), red.port(10)
        await network.bind(ours)
        await other.bind(theirs)
        tables = run("nft", "list", "tables")
        assert tables.split("\n")[:2] == ["table inet hostler-0c1d2e3f", "table inet hostler-deadbeef"]
        first, second = guests.start(ours), guests.start(theirs)
        for guest in (first, second):
            assert guest.ask_dhcp(tmp_path)
            assert guest.pings(OUTSIDE_ADDRESS)
        assert not first.pings(theirs.ip)
        assert not second.pings(ours.ip)
        await other.unbind(theirs.port_id)
        assert run("nft", "list", "tables") == "table inet hostler-0c1d2e3f\n"
        assert first.pings(OUTSIDE_ADDRESS)

    async def test_a_subnet_is_only_one_s(self, network: LocalNetwork, other: LocalNetwork, blue: Network) -> None:
        await network.bind(blue.port(10))
        with pytest.raises(RescheduleError, match=f"by {bridge_name(blue.id)}"):
            await other.bind(Network(1).port(11))
        assert await other.ports() == []


class Reports:
    """Collects what is reported, until it is closed."""

    def __init__(self, network: LocalNetwork) -> None:
        self.ports: list[str] = []
        self._task = asyncio.create_task(self._collect(network))

    async def _collect(self, network: LocalNetwork) -> None:
        async with aclosing(network.plugged()) as reports:
            async for report in reports:
                self.ports.append(report.port_id)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def first(network: LocalNetwork) -> Plugged:
    """The first report."""
    async with asyncio.timeout(10), aclosing(network.plugged()) as reports:
        return await anext(reports)


async def quiet() -> None:
    """Long enough for a report that must not come."""
    await asyncio.sleep(0.3)


class TestPlugged:
    async def test_what_was_plugged_before_anybody_asked(
        self, network: LocalNetwork, blue: Network, guests: Guests
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        guests.start(port)
        assert await first(network) == Plugged(port_id=port.port_id, server_id=port.server_id)

    async def test_each_as_it_becomes_so_and_once(self, network: LocalNetwork, blue: Network, guests: Guests) -> None:
        ports = [blue.port(host) for host in range(10, 14)]
        for port in ports:
            await network.bind(port)
        reports = Reports(network)
        for port in ports:
            guests.start(port)
            await until(lambda port=port: port.port_id in reports.ports)  # type: ignore[misc]  # mypy infers no such lambda
        await quiet()
        assert reports.ports == [port.port_id for port in ports]
        await reports.close()

    async def test_not_a_tap_that_is_down_or_elsewhere(
        self, network: LocalNetwork, blue: Network, red: Network, guests: Guests
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        await network.bind(red.port(10))
        reports = Reports(network)
        run("ip", "link", "add", tap_name(port.port_id), "type", "veth", "peer", "name", "peer")
        run("ip", "link", "set", tap_name(port.port_id), "master", bridge_name(red.id), "up")
        run("ip", "link", "set", tap_name(port.port_id), "down", "master", bridge_name(blue.id))
        await quiet()
        assert reports.ports == []
        run("ip", "link", "set", tap_name(port.port_id), "up")
        await until(lambda: reports.ports == [port.port_id])
        await reports.close()

    async def test_a_port_that_is_bound_when_its_tap_is_there_already(
        self, network: LocalNetwork, blue: Network, guests: Guests
    ) -> None:
        await network.bind(blue.port(10))
        reports = Reports(network)
        late = blue.port(11)
        guests.start(late)
        await quiet()
        assert reports.ports == []
        await network.bind(late)
        await until(lambda: reports.ports == [late.port_id])
        await reports.close()

    async def test_again_when_the_guest_was_started_again(
        self, network: LocalNetwork, blue: Network, guests: Guests
    ) -> None:
        port = blue.port(10)
        await network.bind(port)
        reports = Reports(network)
        guest = guests.start(port)
        await until(lambda: len(reports.ports) == 1)
        guest.unplug()
        guest.plug()
        await until(lambda: len(reports.ports) == 2)
        await reports.close()

    async def test_nothing_is_missed_when_the_kernel_drops_notifications(
        self, network: LocalNetwork, blue: Network, guests: Guests, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links_module, "RECEIVE_BUFFER_BYTES", 1)
        ports = [blue.port(host) for host in range(10, 14)]
        for port in ports:
            await network.bind(port)
        reports = Reports(network)
        await quiet()
        for port in ports:
            guests.start(port)  # all while the event loop does nothing else
        await until(lambda: sorted(reports.ports) == sorted(port.port_id for port in ports))
        await reports.close()

    async def test_closing_ends_it(self, network: LocalNetwork, directory: Path) -> None:
        watched = LocalNetwork(directory, OWNER)
        reports = asyncio.create_task(first(watched))
        await quiet()
        await watched.close()
        with pytest.raises(StopAsyncIteration):
            await reports
