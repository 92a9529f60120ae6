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
THAWS = 3
REMEDY = "install qemu-guest-agent in the guest and let it run, or make the snapshot without quiesce"


@contextmanager
def frozen(domain: libvirt.virDomain, must: bool, mark: Path) -> Iterator[None]:
    """Freeze the guest's file systems for the block if there is an agent that does it; whatever happens, thaw them.

    While they may be frozen the file `mark` is there: for the worker that comes after one that dies meanwhile.

    Raises:
        InvalidState: it `must` be, and cannot.
    """
    with libvirt_errors(Unavailable):
        reason = _unfit(domain)
    if reason:
        _refuse(domain, reason, must)
        yield
        return
    mark.touch()
    try:
        _freeze(domain, must)
        yield
    finally:
        thaw(domain, mark)  # also when it said no: an agent that was too slow may have done it since


def thaw(domain: libvirt.virDomain, mark: Path) -> None:
    """Thaw the guest's file systems; `mark` stays when nobody can say that they are."""
    for last in [False] * (THAWS - 1) + [True]:
        try:
            domain.agentSetResponseTimeout(ANSWER_SECONDS)
            domain.fsThaw()
            mark.unlink(missing_ok=True)
            return
        except libvirt.libvirtError as error:
            if last:
                logger.error("the file systems of guest %s may be frozen: %s", domain.UUIDString(), one_line(error))


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
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        _refuse(domain, f"the guest agent does not freeze the file systems: {one_line(error)}", must)


def _refuse(domain: libvirt.virDomain, reason: str, must: bool) -> None:
    if must:
        raise InvalidState(reason, field="quiesce", value=True, remedy=REMEDY)
    logger.info("the file systems of guest %s are not frozen: %s", domain.UUIDString(), reason)
