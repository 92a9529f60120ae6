"""What real guests do by themselves, or somebody does to them behind our back, shows at their servers."""

import asyncio
import base64
import subprocess

import pytest

from hostler import Client
from hostler.contract.servers import Server
from tests.end_to_end.conftest import DevCloud

pytestmark = pytest.mark.real
LIMIT_SECONDS = 120
POWEROFF = base64.b64encode(b"#!/bin/sh\npoweroff\n").decode()


async def boot(client: Client, name: str, user_data: str | None = None) -> Server:
    operation = await client.servers.boot(
        name, flavor="tiny", image="demo", networks=["net"], host="real", user_data=user_data
    )
    return await operation.result()


async def becomes(client: Client, server: Server, status: str, power_state: str) -> None:
    """Return when the server is that."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            now = await client.servers.show(server.id)
            if (now.status, now.power_state) == (status, power_state):
                return
            await asyncio.sleep(0.5)


async def notes(client: Client, server: Server) -> list[str | None]:
    """What the server's history has of its guest's own doing."""
    return [one.step.note for one in await client.servers.events(server.id) if one.operation == "hypervisor"]


def virsh(*words: str) -> None:
    subprocess.run(["virsh", "--connect", "qemu:///system", *words], check=True, capture_output=True)


async def test_a_guest_that_powers_itself_off_makes_its_server_shutoff(client: Client) -> None:
    server = await boot(client, "leaves", POWEROFF)
    await becomes(client, server, "SHUTOFF", "shutdown")
    assert await notes(client, server) == ["its guest is shutdown, was running: SHUTOFF, was ACTIVE"]
    await (await client.servers.delete(server.id)).result()


async def test_what_is_done_behind_our_back_shows_at_once(client: Client) -> None:
    server = await boot(client, "pushed")
    domain = f"hostler-{server.id}"
    virsh("destroy", domain)
    await becomes(client, server, "SHUTOFF", "shutdown")
    virsh("start", domain)
    await becomes(client, server, "ACTIVE", "running")
    virsh("suspend", domain)
    await becomes(client, server, "ACTIVE", "paused")
    virsh("resume", domain)
    await becomes(client, server, "ACTIVE", "running")
    assert len(await notes(client, server)) == 4
    await (await client.servers.delete(server.id)).result()


async def test_what_happens_while_the_worker_is_dead_shows_when_it_is_back(client: Client, dev_cloud: DevCloud) -> None:
    off, on = await boot(client, "off"), await boot(client, "on")
    before = await client.hosts.show("real")
    doomed = dev_cloud.processes("worker", "host")
    assert doomed
    for process in doomed:
        process.suspend()  # it is not started again before it is dead
    virsh("destroy", f"hostler-{off.id}")
    for process in doomed:
        process.kill()
    await becomes(client, off, "SHUTOFF", "shutdown")
    assert (await client.servers.show(on.id)).status == "ACTIVE"
    assert await notes(client, on) == []
    assert (await client.hosts.show("real")).id == before.id
    for server in (off, on):
        await (await client.servers.delete(server.id)).result()
