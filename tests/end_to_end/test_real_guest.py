"""A real QEMU guest, from its boot to nothing being left of it."""

import asyncio
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from hostler import Client
from hostler.contract.names import bridge_name
from hostler.contract.servers import BlockDeviceMapping, Server
from tests.end_to_end.conftest import DevCloud

pytestmark = pytest.mark.real
GUEST_LIMIT = 90


async def boot(client: Client, name: str, *devices: BlockDeviceMapping, image: str | None = "demo") -> Server:
    operation = await client.servers.boot(
        name, flavor="tiny", image=image, networks=["net"], block_devices=devices, host="real"
    )
    return await operation.result()


async def console(client: Client, server: Server, pattern: str) -> str:
    """What the guest has written, once it matches."""
    async with asyncio.timeout(GUEST_LIMIT):
        while True:
            found = re.search(pattern, await client.servers.console_log(server.id))
            if found:
                return found.group(0)
            await asyncio.sleep(0.5)


async def answers_ping(address: str) -> bool:
    ping = await asyncio.create_subprocess_exec("ping", "-c", "1", "-W", "5", address, stdout=subprocess.DEVNULL)
    return await ping.wait() == 0


async def test_a_guest_boots_with_its_name_and_address_and_lives_through_stop_start_and_reboot(
    client: Client, dev_cloud: DevCloud
) -> None:
    server = await boot(client, "web-1")

    assert (server.status, server.power_state, server.host) == ("ACTIVE", "running", "real")
    [address] = server.addresses
    line = await console(client, server, r"=== source=config-drive .*")
    assert f"hostname=web-1 uuid={server.id}" in line
    assert f"addresses={address.ip}" in line
    assert "disks=vda:1024MiB" in line
    await console(client, server, "web-1 login:")
    assert await answers_ping(address.ip)

    stopped = await (await client.servers.stop(server.id, timeout=timedelta(seconds=60))).result()
    assert (stopped.status, stopped.power_state) == ("SHUTOFF", "shutdown")
    assert "power button" in await client.servers.console_log(server.id)
    started = await (await client.servers.start(server.id)).result()
    assert (started.status, started.power_state) == ("ACTIVE", "running")
    rebooted = await (await client.servers.reboot(server.id, hard=True)).result()
    assert rebooted.status == "ACTIVE"
    await console(client, server, r"boots=[23]")

    deleted = await (await client.servers.delete(server.id)).result()
    assert deleted.status == "DELETED"
    assert leftovers(dev_cloud.directory, server) == []
    network = await client.networks.show("net")
    assert network.ports == 0
    assert [host.servers for host in await client.hosts.list()] == [0, 0]


async def test_volumes_are_attached_booted_from_and_kept_or_deleted_as_asked(
    client: Client, dev_cloud: DevCloud
) -> None:
    kept = await client.volumes.create("data", size_gib=1)
    image = await client.images.show("demo")
    root = BlockDeviceMapping(
        source_type="image",
        destination_type="volume",
        uuid=image.id,
        volume_size=1,
        boot_index=0,
        delete_on_termination=True,
    )
    data = BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=kept.id)

    server = await boot(client, "from-volume", root, data, image=None)

    await console(client, server, "from-volume login:")
    by_name = {device.device: device for device in server.devices}
    assert by_name["vda"].volume_id not in (None, kept.id)
    assert [volume.status for volume in await client.volumes.list()] == ["in-use", "in-use"]
    await (await client.servers.delete(server.id)).result()
    [left] = await client.volumes.list()
    assert (left.id, left.status) == (kept.id, "available")
    assert [file.name for file in (dev_cloud.directory / "volumes").glob("*.raw")] == [f"{kept.id}.raw"]
    await client.volumes.delete(kept.id)
    assert list((dev_cloud.directory / "volumes").glob("*.raw")) == []
    assert leftovers(dev_cloud.directory, server) == []


def leftovers(directory: Path, server: Server) -> list[str]:
    """What is still there of a server that is gone, and of its network, on which it was alone."""
    found = [str(path) for path in directory.rglob(f"*{server.id}*")]
    commands = {
        server.id: ["virsh", "--connect", "qemu:///system", "list", "--all", "--uuid"],
        bridge_name(server.addresses[0].network_id): ["ip", "-o", "link"],
        f"qemu-nbd --pid-file={directory}": ["ps", "-eo", "args"],
        f"dnsmasq --pid-file={directory}": ["ps", "-eo", "args"],
        "10.232.7.0/24": ["nft", "list", "ruleset"],
    }
    for trace, command in commands.items():
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found += [line for line in said.splitlines() if trace in line]
    return found
