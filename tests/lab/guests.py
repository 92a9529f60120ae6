"""What tests of a lab do with its guests and hosts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

from deploy.lab.host import Host
from hostler import Client
from hostler.client import Operation
from hostler.contract.servers import BlockDeviceMapping, Server

LIMIT = 180
COUNTS = {"tick": "1"}
"""Metadata with which the guest counts the seconds on its console."""


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110 - it is about the world, not about a task of ours
            await asyncio.sleep(0.2)


async def is_up(client: Client, host: Host) -> bool:
    return {known.name: known.up for known in await client.hosts.list()}[host.name]


def qemus(hosts: list[Host]) -> list[int]:
    """How many guests each host has."""
    return [host.guests() for host in hosts]


async def on_its_way(operation: Operation, said: str = "to go") -> None:
    """Return when a live migration says this, at first that some of the guest has been sent."""
    async for progress in operation.follow():
        if any(step.name == "migrate_guest" and said in (step.note or "") for step in progress.steps):
            return
    raise AssertionError("it has ended")


async def boot(
    client: Client,
    name: str,
    host: Host,
    user_data: str | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    volumes: Sequence[BlockDeviceMapping] = (),
    image: str | None = "demo",
) -> Server:
    """A server whose guest has come up."""
    operation = await client.servers.boot(
        name,
        flavor="tiny",
        image=image,
        networks=["net"],
        host=host.name,
        user_data=user_data.encode() if user_data else None,
        metadata=metadata,
        block_devices=volumes,
    )
    server = await operation.result()
    await console(client, server, f"{name} login:")
    return server


async def console(client: Client, server: Server, pattern: str) -> str:
    """What the guest has written, once it matches."""
    deadline = monotonic() + LIMIT
    while not (found := re.search(pattern, log := await client.servers.console_log(server.id))):
        assert monotonic() < deadline, log
        await asyncio.sleep(0.2)
    return found.group(0)


async def counted(client: Client, server: Server, *, beyond: int = 0) -> int:
    """Where the guest's counter is, once it is beyond a number."""
    reached = 0

    async def reaches() -> bool:
        nonlocal reached
        found = re.findall(r"tick (\d+)\s", await client.servers.console_log(server.id))
        reached = int(found[-1]) if found else 0
        return reached > beyond

    await until(reaches)
    return reached
