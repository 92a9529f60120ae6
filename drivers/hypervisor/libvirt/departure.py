"""Sees at once that a guest has left for good: libvirt looks five times a second whether its QEMU has ended.

libvirt writes down how far a migration is before it acts on it, in the domain's status file: in phase "confirm3" the
other host has said that all of the guest has come, and libvirt ends it here whatever happens, be it restarted meanwhile
(qemuMigrationSrcConfirmPhase and qemuProcessRecoverMigrationOut in libvirt's src/qemu; unchanged from 0.9 on).
"""

import logging
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lxml import etree

from hostler.contract.errors import HostlerError

logger = logging.getLogger(__name__)

STATUS = Path("/run/libvirt/qemu")
CONFIRMED = "confirm3"


@contextmanager
def watching(name: str, then: Callable[[], None]) -> Iterator[None]:
    """Call `then`, on another thread, when the guest's QEMU has ended and libvirt had confirmed that it would.

    Never where libvirt keeps its state elsewhere: then whoever migrates the guest hears of it a little later.
    """
    try:
        process = os.pidfd_open(int((STATUS / f"{name}.pid").read_text()))
    except (OSError, ValueError):
        yield
        return
    woken, wake = os.pipe()
    thread = threading.Thread(target=_watch, args=(name, process, woken, then), name="departure")
    thread.start()
    try:
        yield
    finally:
        os.close(wake)
        thread.join()
        os.close(woken)
        os.close(process)


def _watch(name: str, process: int, woken: int, then: Callable[[], None]) -> None:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    ended = {descriptor for descriptor, _ in waiting.poll()}
    if process not in ended or not confirmed(STATUS / f"{name}.xml"):
        return
    try:
        then()
    except HostlerError as error:
        logger.warning("it is asked again when libvirt has ended the migration: %s", error)


def confirmed(status: Path) -> bool:
    """Whether libvirt has written down that the guest has left; False when the file is no more, or another's."""
    try:
        job = etree.parse(status).find("job")
    except (OSError, etree.XMLSyntaxError):
        return False
    return job is not None and job.get("async") == "migration out" and job.get("phase") == CONFIRMED
