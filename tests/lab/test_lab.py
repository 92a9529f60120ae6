"""The lab for real: its hosts, guests that reach each other, power cuts and cables that are out."""

import re
from pathlib import Path

import pytest

from deploy.lab.host import Host
from deploy.lab.wires import mac
from hostler import Client
from hostler.contract.servers import Server
from tests.lab.conftest import Lab, lab
from tests.lab.guests import boot, console, counted, is_up, until

pytestmark = pytest.mark.real

# The guest's kernel console is its log: what it writes there, the test reads.
PING = """#!/bin/sh
while sleep 1; do
    ping -c 1 -w 5 {} >/dev/null && times=$((times + 1)) && echo "reached $times "
done >/dev/console
"""


class TestUp:
    async def test_its_hosts_register(self, the_lab: Lab, client: Client) -> None:
        hosts = await client.hosts.list()
        assert [(host.name, host.up) for host in hosts] == [("lab-1", True), ("lab-2", True), ("lab-3", True)]
        assert len({host.id for host in hosts}) == 3

    async def test_again_changes_nothing(self, the_lab: Lab) -> None:
        before = [host.init for host in the_lab.hosts]
        assert f"export HOSTLER_CONFIG={the_lab.site.config}" in the_lab("up")
        assert [host.init for host in the_lab.hosts] == before

    async def test_status(self, the_lab: Lab) -> None:
        shown = the_lab("status")
        for host in the_lab.hosts:
            assert re.search(rf"{host.name} +{host.address} +on, process \d+ +in +\d+ +up", shown)
        assert the_lab.site.ui in shown

    async def test_the_hosts_know_the_machine_by_an_address_that_stays(self, the_lab: Lab) -> None:
        bridge = Path("/sys/class/net", the_lab.site.name)
        assert (bridge / "address").read_text().strip() == mac(the_lab.site)
        assert (bridge / "addr_assign_type").read_text().strip() == "3"  # set, not taken from a cable

    async def test_a_host_sees_its_own_files_only(self, the_lab: Lab) -> None:
        assert the_lab("exec", "lab-1", "ls", str(the_lab.site.directory)).split() == ["images", "state"]
        assert the_lab("exec", "lab-2", "hostname").strip() == "lab-2"

    async def test_libvirt_s_hosts_reach_each_other_by_tls_and_nobody_else_does(
        self, the_lab: Lab, one: Host, other: Host
    ) -> None:
        uri = f"qemu+tls://{other.address}/system"
        assert "lab-2" in the_lab("exec", one.name, "virsh", "--connect", uri, "hostname")
        stranger = lab(
            "exec", the_lab.site.directory, one.name, "virsh", "--connect", f"{uri}?pkipath=/tmp", "hostname"
        )
        assert stranger.returncode != 0


class TestGuests:
    async def test_on_two_hosts_they_reach_each_other_and_go_on_when_one_moves(
        self, client: Client, one: Host, other: Host, third: Host
    ) -> None:
        first = await boot(client, "first", one)
        second = await boot(client, "second", third, PING.format(first.addresses[0].ip))
        await counted(client, second, "reached")

        moved = await (await client.servers.migrate(first.id, host=other.name)).result()
        assert (moved.status, moved.host) == ("VERIFY_RESIZE", other.name)
        await console(client, first, r"first_boot=no boots=2 .*addresses=\S+")
        await counted(client, second, "reached", beyond=await counted(client, second, "reached"))
        await (await client.servers.confirm_resize(first.id)).result()


class TestKill:
    async def test_a_power_cut_ends_the_host_and_its_guests_and_its_disk_stays(
        self, the_lab: Lab, client: Client, other: Host
    ) -> None:
        server = await boot(client, "victim", other)
        assert other.guests() == 1

        the_lab("kill", other.name)
        assert not [trace for trace in the_lab.traces() if server.id in trace or trace.endswith("qemu-system-x86")]
        assert f"interface {the_lab.site.name}-2" not in the_lab.traces()
        await until(lambda: is_down(client, other))

        the_lab("start", other.name)
        await until(lambda: is_up(client, other))
        await until(lambda: is_off(client, server))
        assert server.id in the_lab("exec", other.name, "virsh", "list", "--all", "--uuid")
        started = await (await client.servers.start(server.id)).result()
        assert started.status == "ACTIVE"
        # Not its count of boots: what a guest has not flushed is lost to a power cut.
        await console(client, started, r"(?s)=== source.*login:.*=== source")


class TestCut:
    async def test_a_host_whose_cable_is_out_is_down_and_its_guest_lives(
        self, the_lab: Lab, client: Client, other: Host
    ) -> None:
        await boot(client, "lonely", other)
        the_lab("cut", other.name)
        await until(lambda: is_down(client, other))
        assert other.guests() == 1
        assert re.search(r"lab-2 .* out +1 +down", the_lab("status"))
        the_lab("join", other.name)
        await until(lambda: is_up(client, other))


async def is_down(client: Client, host: Host) -> bool:
    return not await is_up(client, host)


async def is_off(client: Client, server: Server) -> bool:
    return (await client.servers.show(server.id)).status == "SHUTOFF"


class TestWrongUse:
    @pytest.mark.parametrize(
        ("words", "complaint", "remedy"),
        [
            (["kill", "lab-9"], "the lab has no host 'lab-9'", "it has lab-1, lab-2, lab-3"),
            (["start", "lab-1"], "lab-1 is on already", "kill lab-1"),
            (["up", "--hosts", "2"], "the lab in .* is another one: .* with 3 hosts", "end that one first"),
            (["up", "--subnet", "198.18.1"], "198.18.1 is no IPv4 subnet", "write it like"),
        ],
    )
    def test_of_a_lab_that_is_up(self, the_lab: Lab, words: list[str], complaint: str, remedy: str) -> None:
        command, *arguments = words
        done = lab(command, the_lab.site.directory, *arguments)
        assert done.returncode == 1
        assert re.search(complaint, done.stderr)
        assert remedy in done.stderr

    def test_of_one_that_is_not(self, tmp_path: Path) -> None:
        done = lab("status", tmp_path / "none")
        assert done.returncode == 1
        assert "there is no lab in" in done.stderr
        assert "bring one up: make lab" in done.stderr

    def test_ending_one_that_is_not_is_no_error(self, tmp_path: Path) -> None:
        assert lab("down", tmp_path / "none").returncode == 0

    def test_a_directory_of_somebody_else_s(self, the_lab: Lab) -> None:
        done = lab("up", the_lab.site.directory.parent, "--name", "hltheirs", "--subnet", "198.18.251.0/24")
        assert done.returncode == 1
        assert "is no lab's, and not empty" in done.stderr
        assert the_lab.site.directory.exists()

    def test_a_subnet_that_is_taken(self, the_lab: Lab, tmp_path: Path) -> None:
        done = lab("up", tmp_path / "second", "--name", "hlsecond", "--subnet", str(the_lab.site.subnet))
        assert done.returncode == 1
        assert f"this machine reaches {the_lab.site.subnet} by {the_lab.site.name}" in done.stderr
        assert not (tmp_path / "second").exists()
