"""Events come over a connection of their own, of which nothing stays."""

import asyncio
import gc

import libvirt
import pytest

from drivers.blocking import BlockingCalls
from drivers.hypervisor.libvirt.events import watch
from hostler.settings import LibvirtSettings


def connections() -> int:
    """How many connections to libvirt the process holds."""
    gc.collect()
    return sum(isinstance(one, libvirt.virConnect) for one in gc.get_objects())


@pytest.mark.real
@pytest.mark.usefixtures("hypervisor")
async def test_no_connection_stays_behind() -> None:
    blocking, before = BlockingCalls("events", 1), connections()
    for _ in range(5):
        began = asyncio.Event()
        watching = asyncio.create_task(watch(LibvirtSettings().uri, blocking, lambda _: None, began.set))
        await began.wait()
        watching.cancel()
        await asyncio.wait([watching])
    await blocking.close()

    async with asyncio.timeout(5):
        # The event loop of libvirt may not have come to the last one.
        while connections() > before + 1:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
