"""A real QEMU guest that is resized where it is, and rebuilt: it counts its boots on its disk, to tell disks apart."""

import re

import pytest

from hostler import Client
from hostler.client import Operation
from hostler.contract.servers import Server
from tests.end_to_end.conftest import DevCloud
from tests.end_to_end.test_real_guest import answers_ping, console, leftovers

pytestmark = pytest.mark.real

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJaUzoJNrYhLJ9ZlHvDSFg73T1uzWSjagsTV+kBziCPW mover"
PASSWORD = "of-the-rebuilt"
TELL_WHAT_IS_NEW = f"""#!/bin/sh
hash=$(sed -n 's/^root:\\([^:]*\\):.*/\\1/p' /etc/passwd)
salt=$(echo "$hash" | cut -d '$' -f 3)
[ "$(mkpasswd -m sha512 -S "$salt" {PASSWORD})" = "$hash" ] && echo "=== password=new"
echo "=== key=$(grep -o 'ssh-ed25519 [^"]*' /config/openstack/latest/meta_data.json | head -n 1)."
"""
"""The demo guest makes a hash of the password that the config drive has."""


async def boots(client: Client, server: Server) -> int:
    """How often the disk was booted from, by the guest's latest word."""
    await console(client, server, rf"{server.name} login:")
    log = await client.servers.console_log(server.id)
    return int(re.findall(r"boots=(\d+)", log)[-1])


async def done(operation: Operation) -> Server:
    return await operation.result()


async def test_a_guest_keeps_its_disk_through_a_resize_and_is_told_what_is_new_with_its_next(
    client: Client, dev_cloud: DevCloud
) -> None:
    server = await done(await client.servers.boot("mover", flavor="tiny", image="demo", networks=["net"], host="real"))
    [address] = server.addresses
    assert await boots(client, server) == 1

    # Larger, on the same host.
    larger = await done(await client.servers.resize(server.id, "larger"))
    assert (larger.status, larger.flavor, larger.addresses) == ("VERIFY_RESIZE", "larger", server.addresses)
    assert await boots(client, larger) == 2
    assert "disks=vda:2048MiB" in await console(client, larger, r"=== source=config-drive .*")
    assert "cpus=2" in await console(client, larger, r"=== source=config-drive .*")
    confirmed = await done(await client.servers.confirm_resize(server.id))
    assert (confirmed.status, confirmed.flavor) == ("ACTIVE", "larger")
    assert await answers_ping(address.ip)

    await client.keypairs.create("mover", KEY)
    rebuilt = await done(
        await client.servers.rebuild(
            server.id, image="demo", key_name="mover", user_data=TELL_WHAT_IS_NEW.encode(), admin_password=PASSWORD
        )
    )
    assert (rebuilt.status, rebuilt.addresses, rebuilt.key_name) == ("ACTIVE", server.addresses, "mover")
    assert await boots(client, rebuilt) == 1
    await console(client, rebuilt, "=== password=new")
    await console(client, rebuilt, re.escape(f"=== key={KEY}."))

    await done(await client.servers.delete(server.id))
    assert leftovers(dev_cloud.directory, server) == []
