"""What is kept of a guest on one host, and brought back there and on another: backups, and root disks made anew."""

import re

import pytest

from deploy.lab.host import Host
from hostler import Client
from hostler.client import Operation
from hostler.contract.audit import FindingKind
from hostler.contract.errors import NotFound
from hostler.contract.servers import BlockDeviceMapping
from tests.lab.conftest import Lab
from tests.lab.guests import COUNTS, boot, console, counted, qemus

pytestmark = pytest.mark.real

MARKING = """#!/bin/sh
echo of-the-first >/data/mark
echo of-the-volume >/dev/vdb
sync
echo "=== marked" >/dev/console
"""
TELLING = """#!/bin/sh
echo "=== mark=$(cat /data/mark). volume=$(head -n 1 /dev/vdb)." >/dev/console
"""


async def made(operation: Operation) -> str:
    """The image that it makes."""
    await operation.result()
    assert operation.image_id is not None
    return operation.image_id


async def test_a_guest_goes_on_while_it_is_backed_up_and_is_taken_back_to_that_or_made_anew(
    the_lab: Lab, client: Client, one: Host, other: Host
) -> None:
    data = await client.volumes.create("kept", size_gib=1)
    volume = BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=data.id)
    server = await boot(client, "kept", one, MARKING, metadata=COUNTS, volumes=[volume])
    await console(client, server, "=== marked")

    first = await made(await client.servers.backup(server.id, "monday", backup_type="daily", rotation=1, quiesce=True))
    reached = await counted(client, server, beyond=await counted(client, server))
    backup = await made(await client.servers.backup(server.id, "tuesday", backup_type="daily", rotation=1))
    await counted(client, server, beyond=reached)
    said = await client.servers.console_log(server.id)
    assert len(re.findall("=== frozen from", said)) == 2
    assert len(re.findall("=== source", said)) == 1
    with pytest.raises(NotFound):
        await client.images.show(first)

    await (await client.servers.reboot(server.id, hard=True)).result()
    await console(client, server, "=== source.* boots=2 ")
    restored = await (await client.servers.rebuild(server.id, image=backup)).result()
    assert (restored.host, restored.addresses) == (one.name, server.addresses)
    await console(client, server, "=== source.* first_boot=no boots=2 ")  # and not 3

    copy = await boot(client, "copy", other, TELLING, metadata=COUNTS, image="tuesday")
    await console(client, copy, r"=== mark=of-the-first\. volume=\.")
    assert qemus(the_lab.hosts) == [1, 1, 0]
    anew = await (await client.servers.rebuild(server.id, image="demo", user_data=TELLING.encode())).result()
    assert (anew.id, anew.host, anew.addresses, anew.devices) == (server.id, one.name, server.addresses, server.devices)
    await console(client, server, r"=== mark=\. volume=of-the-volume\.")

    for each in (server, copy):
        await (await client.servers.delete(each.id)).result()
    await client.images.delete(backup)
    await client.volumes.delete(data.id)
    left = {finding.kind for finding in (await client.audit(heal=False)).findings}
    assert left == {FindingKind.CACHED_IMAGE}  # the backup's, which nobody has any more
