"""What is held while a guest moves, and let go of afterwards: a worker sends guests for as long as it runs."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import libvirt
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor, migration_call
from drivers.hypervisor.libvirt.standstill import Standstill
from hostler.contract.guests import GuestSpec, Incoming, MigrationLimits
from hostler.settings import LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import ignore

PLAYED = "test:///default"
PLAYED_GUEST = "6695eb01-f6a4-8304-79aa-97f2502e193f"
SLACK = 3
"""Of descriptors that others in the process may open meanwhile."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[libvirt.virConnect]]:
    """All connections to libvirt that are opened meanwhile; those that are let go of are dead."""
    found: list[weakref.ref[libvirt.virConnect]] = []
    really_open = libvirt.open

    def noted(uri: str) -> libvirt.virConnect:
        connection = really_open(uri)
        found.append(weakref.ref(connection))
        return connection

    monkeypatch.setattr(libvirt, "open", noted)
    return found


def send(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def move(*_arguments: Any) -> None:
        if fails:
            raise libvirt.libvirtError("the other host is gone")

    monkeypatch.setattr(libvirt.virDomain, "migrateToURI3", move)
    incoming = Incoming(server_id=PLAYED_GUEST, uri="", address="192.0.2.7", live="<l/>", persistent="<p/>")
    peer: Any = None
    try:
        migration_call.migrate(PLAYED, incoming, MigrationLimits(), peer, Standstill(), lambda: None)
    except libvirt.libvirtError:
        assert fails


@pytest.mark.parametrize("fails", [False, True], ids=["it works", "it fails"])
async def test_the_connection_of_a_migration_is_let_go_of_with_its_end(
    opened: list[weakref.ref[libvirt.virConnect]], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    send(fails, monkeypatch)
    async with asyncio.timeout(5):
        while [connection for connection in opened if connection() is not None]:
            gc.collect()
            await asyncio.sleep(0.01)
    assert len(opened) == 1


async def test_so_is_one_on_which_there_is_no_such_guest(opened: list[weakref.ref[libvirt.virConnect]]) -> None:
    with pytest.raises(libvirt.libvirtError), Standstill().noting(PLAYED, PLAYED_GUEST.replace("6", "7")):
        pass
    gc.collect()
    assert [connection() for connection in opened] == [None]


@pytest.mark.real
async def test_no_descriptors_are_left_of_it(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    before = descriptors()
    for _ in range(10):
        with Standstill().noting(LibvirtSettings().uri, tiny.server_id) as domain:
            assert domain.UUIDString() == tiny.server_id
        del domain
    async with asyncio.timeout(5):
        while descriptors() > before + SLACK:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@pytest.mark.real
async def test_that_a_guest_stands_still_is_seen_meanwhile(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    still = Standstill()
    still.runs()
    with still.noting(LibvirtSettings().uri, tiny.server_id) as domain:
        domain.suspend()
        async with asyncio.timeout(5):
            while still.duration is None:  # noqa: ASYNC110 - libvirt tells of it on a thread of its own
                await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
