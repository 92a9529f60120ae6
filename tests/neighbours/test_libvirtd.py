"""libvirtd is killed in the middle of a real guest's spawn, stop and life. It is not this machine's, but the test's."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from hostler.contract.errors import HostlerError, Unavailable
from hostler.contract.servers import Server
from tests.end_to_end.conftest import DEMO
from tests.neighbours.libvirtd import Libvirtd, private_libvirtd
from tests.processes.cloud import LIMIT, ProcessCloud, process_cloud
from tests.stage import eventually
from workers import dev

pytestmark = [pytest.mark.real, pytest.mark.slow]

IMAGE, NETWORK = "guest", "real"
GUEST_LIMIT = timedelta(minutes=3)


@dataclass(frozen=True)
class Site:
    """A cloud with one real host, and that host's libvirtd."""

    cloud: ProcessCloud
    libvirtd: Libvirtd
    state: Path

    async def booted(self) -> Server:
        """A server whose guest has come up."""
        server = await self.cloud.booted(image=IMAGE, networks=[NETWORK])
        await self.console(server, "login:")
        return server

    async def console(self, server: Server, pattern: str) -> None:
        """Return when the guest has written that."""
        async with asyncio.timeout(GUEST_LIMIT.total_seconds()):
            while True:
                if re.search(pattern, await self.cloud.client.servers.console_log(server.id)):
                    return
                await asyncio.sleep(0.2)

    def written(self, server: Server) -> int:
        """How many bytes the guest has written to its console."""
        [log] = (self.state / "guests" / server.id).glob("console.log")
        return log.stat().st_size

    def leftovers(self) -> list[str]:
        """Domains, guests' files, claims and ports."""
        kinds = ("guests", "claims", "network/ports", "network/dhcp")
        files = [str(path) for kind in kinds for path in (self.state / kind).glob("*")]
        return self.libvirtd.domains() + files


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that QEMU's and dnsmasq's users get through."""
    with tempfile.TemporaryDirectory(prefix="hostler-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def site(directory: Path) -> AsyncIterator[Site]:
    """The cloud."""
    state = directory / "real"
    with private_libvirtd(directory / "libvirt") as libvirtd:
        await libvirtd.start()
        async with process_cloud(directory / "cloud", hosts=()) as cloud:
            cloud.add_host(
                "real",
                {
                    "HOSTLER_STATE_DIR": str(state),
                    "HOSTLER_IMAGES": str(cloud.settings.images_dir),
                    "HOSTLER_HOST__NAME": "real",
                    "HOSTLER_HOST__DRIVER": "libvirt",
                    "HOSTLER_HOST__VOLUMES": "false",
                    "HOSTLER_HOST__LIBVIRT__URI": libvirtd.uri,
                    "HOSTLER_HOST__LIBVIRT__VIRT_TYPE": "qemu",
                },
            )
            await dev.hosts_up(cloud.settings, 1)
            await cloud.client.networks.create(NETWORK, cidr="10.232.9.0/24")
            await cloud.client.images.create(IMAGE, DEMO)
            yield Site(cloud, libvirtd, state)
            if not libvirtd.process.running:
                await libvirtd.start()
            for server in await cloud.client.servers.list():  # what a failed test leaves
                await cloud.deleted(server.id)


async def test_a_boot_ends_as_asked_when_libvirtd_is_back_at_once(site: Site) -> None:
    boot = await site.cloud.boot(image=IMAGE, networks=[NETWORK])
    await site.cloud.reached(boot, "spawn")
    site.libvirtd.process.kill()
    await site.libvirtd.start()

    server = await boot.result(LIMIT)

    assert server.status == "ACTIVE"
    assert site.libvirtd.domains() == [server.id]
    await site.cloud.deleted(server.id)
    assert site.leftovers() == []


async def test_a_boot_that_cannot_go_on_says_why_and_is_undone_when_libvirtd_is_back(site: Site) -> None:
    boot = await site.cloud.boot(image=IMAGE, networks=[NETWORK])
    await site.cloud.reached(boot, "spawn")
    site.libvirtd.process.kill()
    with pytest.raises(HostlerError) as failed:
        await boot.result(LIMIT)
    assert "libvirt does not answer" in str(failed.value.detail.attempts)
    [host] = await site.cloud.client.hosts.list()
    assert host.owed > 0, "what could not be undone is not forgotten"

    await site.libvirtd.start()
    await site.cloud.settled()

    assert site.leftovers() == []
    await site.cloud.deleted(boot.server_id)


async def test_a_stop_ends_as_asked(site: Site) -> None:
    server = await site.booted()
    stop = await site.cloud.client.servers.stop(server.id, timeout=timedelta(seconds=60))
    await site.cloud.reached(stop, "stop_guest")
    site.libvirtd.process.kill()
    await site.libvirtd.start()

    stopped = await stop.result(LIMIT)

    assert (stopped.status, stopped.power_state) == ("SHUTOFF", "shutdown")
    await site.cloud.deleted(server.id)
    assert site.leftovers() == []


async def test_a_guest_lives_on_and_is_found_again(site: Site) -> None:
    server = await site.booted()
    site.libvirtd.process.kill()
    before = site.written(server)
    with pytest.raises(Unavailable, match="libvirt does not answer"):
        await site.cloud.client.servers.console_log(server.id)
    await eventually(lambda: site.written(server) > before, within=60)  # it writes on, with nobody to look after it
    await site.libvirtd.start()

    rebooted = await (await site.cloud.client.servers.reboot(server.id, hard=True)).result(LIMIT)

    assert rebooted.status == "ACTIVE"
    await site.console(server, r"boots=2")
    await site.cloud.deleted(server.id)
    assert site.leftovers() == []
