"""Events come over a connection of their own, of which nothing stays."""

import asyncio
import gc

import libvirt

from drivers.blocking import BlockingCalls
from drivers.hypervisor.libvirt.events import watch


def connections() -> int:
    """How many connections to libvirt the process holds."""
    gc.collect()
    return sum(isinstance(one, libvirt.virConnect) for one in gc.get_objects())


async def test_no_connection_stays_behind() -> None:
    blocking, before = BlockingCalls("events", 1), connections()
    for _ in range(3):
        began = asyncio.Event()
        watching = asyncio.create_task(watch("test:///default", blocking, lambda _: None, began.set))
        await began.wait()
        watching.cancel()
        await asyncio.wait([watching])
    await blocking.close()

    assert connections() == before
