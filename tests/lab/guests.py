"""What tests of a lab do with its guests and hosts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from deploy.lab.host import Host
from hostler import Client
from hostler.client import Operation
from hostler.contract.servers import BlockDeviceMapping, Server

Found = TypeVar("Found")

LIMIT = 180
EVERY = 0.5
"""Seconds. Each look is a call that takes processor time of five processes, which the guests need."""
COUNTS = {"tick": "1"}
"""Metadata with which the guest counts the seconds on its console."""
MARKER_BYTES = 1_000_000


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110 - it is about the world, not about a task of ours
            await asyncio.sleep(EVERY)


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

    def matching(log: str) -> str | None:
        found = re.search(pattern, log)
        return found and found.group(0)

    return await _found(client, server, matching)


async def _found(client: Client, server: Server, find: Callable[[str], Found | None]) -> Found:
    """What is found in the console log, once it is not None."""
    deadline = monotonic() + LIMIT
    while (found := find(log := await client.servers.console_log(server.id))) is None:
        assert monotonic() < deadline, (await client.servers.show(server.id), log)
        await asyncio.sleep(EVERY)
    return found


def rereading(where: str) -> str:
    """User data with which the guest marks a disk there, and reads the mark again and again, not from its memory.

    Each time it also writes a block to its root disk, and reads all of these. `whole N` on its console says that all
    was as it should be for the Nth time; the number is then on the disk, where it counts its boots. That it writes in
    place, so that a power cut leaves one or the other.
    """
    return f"""#!/bin/sh
sum=$(head -c {MARKER_BYTES} /dev/urandom | tee {where} | md5sum)
while sleep 0.5; do
    times=$((times + 1))
    printf '%1024s' $times >>/data/blocks
    echo $times 1<>/data/boots
    sync
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(head -c {MARKER_BYTES} {where} | md5sum)" = "$sum" ] || exit
    [ "$(echo $(cat /data/blocks))" = "$(echo $(seq $times))" ] || exit
    echo "whole $times"
done >/dev/console
"""


async def reread(client: Client, server: Server) -> int:
    """How often the guest has read its disks and found them whole, once it has begun to on the host where it is."""
    return await counted(client, server, "whole", beyond=await counted(client, server, "whole"))


async def counted(client: Client, server: Server, what: str = "tick", *, beyond: int = 0) -> int:
    """Where the guest's counter is, once it is beyond a number."""

    def reached(log: str) -> int | None:
        numbers = [int(number) for number in re.findall(rf"{what} (\d+)\s", log)]
        return numbers[-1] if numbers and numbers[-1] > beyond else None

    return await _found(client, server, reached)
