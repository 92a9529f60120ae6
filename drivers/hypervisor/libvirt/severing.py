"""Breaks the connections by which a guest leaves, when the host that it goes to has fallen silent.

QEMU (7.2) closes a disk's connection by waiting for the other side, with the guest standing still meanwhile: until TCP
gives up, a quarter of an hour. A connection that the kernel has broken it closes at once.

None is broken in post-copy: the guest, which is on both hosts then, would be lost.
"""

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import libvirt
import psutil

from drivers.blocking import BlockingCalls
from drivers.environment import clean
from drivers.hypervisor.libvirt import migration_job
from hostler.contract.errors import Unavailable

logger = logging.getLogger(__name__)

PORTS = range(49152, 49216)
"""libvirt's migration_port_min to migration_port_max: nothing else of a guest, a volume for one, is reached there."""
SECONDS = 10
SEVER_INTERVAL = timedelta(seconds=1)


@asynccontextmanager
async def severing(
    blocking: BlockingCalls, domain: libvirt.virDomain, silent: Callable[[], bool]
) -> AsyncIterator[None]:
    """Break the connections to the other host when it is `silent`: else the guest stands still until TCP does."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(SEVER_INTERVAL.total_seconds())
            with suppress(Unavailable):  # libvirt is away, and does not say whether it may be done
                if silent() and not await blocking.run(migration_job.crossing, domain):
                    await blocking.run(sever, domain.UUIDString())

    task = asyncio.create_task(watch(), name="severing")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def sever(server_id: str) -> None:
    """Break them. Nothing happens where there are none."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline() if process.name().startswith("qemu-system") else []
            if server_id in words:  # after -uuid
                for connection in process.net_connections("tcp"):
                    if getattr(connection.raddr, "port", None) in PORTS:  # a socket that listens has none
                        _break((*connection.laddr,), (*connection.raddr,))
        except psutil.Error:
            continue  # it has ended meanwhile


def _break(here: tuple[str, int], there: tuple[str, int]) -> None:
    """iproute2's ss asks the kernel for that (CONFIG_INET_DIAG_DESTROY, which distributions have)."""
    command = ["ss", "--kill", "--tcp", "src", here[0], "sport", "=", str(here[1])]
    command += ["dst", there[0], "dport", "=", str(there[1])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean(), timeout=SECONDS)
        complaint = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        complaint = str(error)
    logger.warning("broke the migration's connection to %s port %s %s", *there, complaint)
