"""Hosts that share the guests' disks: what moves finds its disks there, and what is evacuated has them still."""

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab.certificates import QEMU_USER
from deploy.lab.host import Host
from hostler import Client
from hostler.contract.servers import Server
from tests.lab.conftest import Lab, a_lab
from tests.lab.guests import COUNTS, boot, console, counted, is_up, until

pytestmark = pytest.mark.real
MARKER_BYTES = 5_000_000
MARK = f"#!/bin/sh\nhead -c {MARKER_BYTES} /dev/urandom >/data/marker\nsync\necho marked >/dev/console\n"


@pytest.fixture(scope="module")
def the_lab() -> Iterator[Lab]:
    """A lab whose hosts share the disks of their guests."""
    with a_lab(2, "--shared") as lab:
        yield lab


def root_disk(lab: Lab, server: Server) -> tuple[list[str], int]:
    """The hosts that have a name for the server's root disk, and which file it is."""
    found = list(lab.site.shared_disks.glob(f"*/{server.id}/disk"))
    states = [path.stat() for path in found]
    assert {state.st_uid for state in states} == {pwd.getpwnam(QEMU_USER).pw_uid}
    [inode] = {state.st_ino for state in states}
    return sorted(path.parents[1].name for path in found), inode


async def test_a_guest_keeps_its_disks_there_and_back_and_when_its_host_is_lost(
    the_lab: Lab, client: Client, one: Host, other: Host
) -> None:
    ids = {host.name: host.id for host in await client.hosts.list()}
    server = await boot(client, "keeper", one, MARK, metadata=COUNTS)
    await console(client, server, "marked")
    _, same = root_disk(the_lab, server)
    reached = await counted(client, server)

    for host in (other, one, other):
        operation = await client.servers.live_migrate(server.id, host=host.name)
        assert (await operation.result()).host == host.name
        reached = await counted(client, server, beyond=reached)
        assert root_disk(the_lab, server) == ([ids[host.name]], same)  # nothing was copied
    assert not (await client.audit(heal=False)).findings

    the_lab("kill", other.name)
    await until(lambda: is_down(client, other))
    await until(lambda: is_up(client, one))
    await client.hosts.declare_down(other.name, "its power was cut")
    evacuated = await (await client.servers.evacuate(server.id)).result()
    assert (evacuated.status, evacuated.host) == ("ACTIVE", one.name)
    assert "first_boot=no boots=2" in await console(client, server, r"=== source.*")
    assert root_disk(the_lab, server) == (sorted(ids.values()), same)

    the_lab("start", other.name)
    await until(lambda: is_up(client, other))
    await client.hosts.enable(other.name)
    await until(lambda: only(the_lab, server, ids[one.name]))
    assert root_disk(the_lab, server) == ([ids[one.name]], same)
    assert not (await client.audit(heal=False)).findings


async def test_a_cold_migration_copies_them_on_the_storage(
    the_lab: Lab, client: Client, one: Host, other: Host
) -> None:
    ids = {host.name: host.id for host in await client.hosts.list()}
    server = await boot(client, "mover", one, MARK)
    await console(client, server, "marked")

    sent = Path("/sys/class/net") / f"{the_lab.site.name}-{other.number}" / "statistics" / "tx_bytes"
    before = int(sent.read_text())

    moved = await (await client.servers.migrate(server.id, host=other.name)).result()

    assert moved.host == other.name
    assert int(sent.read_text()) - before < MARKER_BYTES / 2, "the disk has come from host to host"
    assert "first_boot=no boots=2" in await console(client, server, r"=== source.*")
    await (await client.servers.confirm_resize(server.id)).result()
    assert root_disk(the_lab, server)[0] == [ids[other.name]]
    assert not (await client.audit(heal=False)).findings


async def is_down(client: Client, host: Host) -> bool:
    return not await is_up(client, host)


async def only(lab: Lab, server: Server, host_id: str) -> bool:
    return root_disk(lab, server)[0] == [host_id]
