"""libvirt's lifecycle events: hints that a domain's state may have changed.

libvirt delivers events to an event loop of its own, one for the process, which a thread runs from the first use to the
process's end. They come over a connection of their own, which is opened again after libvirtd was restarted.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import libvirt

from drivers.blocking import BlockingCalls
from drivers.hypervisor.libvirt.connection import one_line

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0


async def watch(uri: str, blocking: BlockingCalls, changed: Callable[[str], None], anew: Callable[[], None]) -> None:
    """Call `changed` with the UUID of each domain that something happens to.

    Call `anew` whenever the connection was opened: what happened before, nobody saw. Both are called on the event
    loop's thread. Ends by being cancelled.
    """
    told = False
    while True:
        lost = asyncio.Event()
        try:
            connection, callback = await blocking.run(_open, uri, _on_loop(changed), _on_loop(lost.set))
        except libvirt.libvirtError as error:
            if not told:
                logger.warning("waiting for libvirt at %s: %s", uri, one_line(error))
                told = True
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        told = False
        try:
            anew()
            await lost.wait()
            logger.warning("the connection to libvirt is lost")
        finally:
            await blocking.run(_close, connection, callback)


def _open(uri: str, changed: Callable[[str], None], lost: Callable[[], None]) -> tuple[libvirt.virConnect, int]:
    run_event_loop()
    connection = libvirt.open(uri)

    def on_event(_connection: Any, domain: libvirt.virDomain, _event: int, _detail: int, _opaque: None) -> None:
        changed(domain.UUIDString())

    connection.registerCloseCallback(lambda _connection, _reason, _opaque: lost(), None)
    return connection, connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_event, None)


def _close(connection: libvirt.virConnect, callback: int) -> None:
    """libvirt holds the connection for as long as it has a callback, also after it was closed."""
    with suppress(libvirt.libvirtError):  # it may be broken already
        connection.unregisterCloseCallback()
    with suppress(libvirt.libvirtError):
        connection.domainEventDeregisterAny(callback)
    with suppress(libvirt.libvirtError):
        connection.close()


def _on_loop(call: Callable[..., None]) -> Callable[..., None]:
    """`call`, from another thread."""
    loop = asyncio.get_running_loop()

    def hand_over(*args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(partial(call, *args))

    return hand_over


@cache
def run_event_loop() -> None:
    """Must have run before the first connection that is to have events."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()
