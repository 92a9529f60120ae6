"""The agent in a guest (qemu-ga), as far as it freezes file systems. All calls block."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
from lxml import etree

from drivers.hypervisor.libvirt.connection import libvirt_errors, one_line
from hostler.contract.errors import InvalidState, Unavailable

logger = logging.getLogger(__name__)

CHANNEL = "org.qemu.guest_agent.0"
ANSWER_SECONDS = 60
"""How long it may take to flush and freeze. libvirt itself would wait for ever."""
THAW_SECONDS = 10
"""How long an agent has that is asked again and again: another guest may be waiting for its turn."""
THAWS = 3
REMEDY = "install qemu-guest-agent in the guest and let it run, or make the snapshot without quiesce"


@contextmanager
def frozen(domain: libvirt.virDomain, must: bool, mark: Path) -> Iterator[None]:
    """Freeze the guest's file systems for the block if there is an agent that does it; whatever happens, thaw them.

    While they may be frozen the file `mark` is there, for whoever thaws them then: see `thaw_left`.

    Raises:
        InvalidState: it `must` be, and cannot.
    """
    with libvirt_errors(Unavailable):
        reason, start = _unfit(domain), str(domain.ID())
    if reason:
        _refuse(domain, reason, must)
        yield
        return
    mark.write_text(start)
    try:
        _freeze(domain, must)
        yield
    finally:
        _thaw(domain, mark)  # also when it said no: an agent that was too slow may have done it since


def thaw_left(domain: libvirt.virDomain, mark: Path) -> str:
    """Thaw the file systems of a guest that is on and has this `mark`, which stays when nobody can say that they are.

    Answers why not, or nothing. In a guest that was started since the mark was made none is frozen.
    """
    if mark.read_text() in ("", str(domain.ID())):  # a worker that died, or of a former release, wrote no more
        return _try_to_thaw(domain, mark, THAW_SECONDS)
    mark.unlink(missing_ok=True)
    return ""


def _thaw(domain: libvirt.virDomain, mark: Path) -> None:
    for _ in range(THAWS):
        reason = _try_to_thaw(domain, mark, ANSWER_SECONDS)
        if not reason:
            return
    logger.error("the file systems of guest %s may be frozen: %s", domain.UUIDString(), reason)


def _try_to_thaw(domain: libvirt.virDomain, mark: Path, seconds: int) -> str:
    try:
        domain.agentSetResponseTimeout(seconds)
        domain.fsThaw()
    except libvirt.libvirtError as error:
        return one_line(error)
    mark.unlink(missing_ok=True)
    return ""


def _unfit(domain: libvirt.virDomain) -> str:
    """Why there is nobody to ask; empty when there is."""
    state, _reason = domain.state()
    if state != libvirt.VIR_DOMAIN_RUNNING:
        return "the guest is paused"
    channels = etree.fromstring(domain.XMLDesc()).findall("devices/channel/target")
    if not any(c.get("name") == CHANNEL and c.get("state") == "connected" for c in channels):
        return "no guest agent runs in the guest"
    try:
        domain.agentSetResponseTimeout(ANSWER_SECONDS)
        domain.fsThaw()  # a worker may have died between its freeze and its thaw
    except libvirt.libvirtError as error:
        return f"the guest agent does not answer: {one_line(error)}"
    return ""


def _freeze(domain: libvirt.virDomain, must: bool) -> None:
    try:
        frozen_ones = domain.fsFreeze()
    except libvirt.libvirtError as error:
        _refuse(domain, f"the guest agent does not freeze the file systems: {one_line(error)}", must)
        return
    if not frozen_ones:
        _refuse(domain, "the guest agent has found no file system that it can freeze", must)


def _refuse(domain: libvirt.virDomain, reason: str, must: bool) -> None:
    if must:
        raise InvalidState(reason, field="quiesce", value=True, remedy=REMEDY)
    logger.info("the file systems of guest %s are not frozen: %s", domain.UUIDString(), reason)
