"""Moves for real: guests whose counter on the serial console shows that they went on, and hosts that fail meanwhile."""

import pytest

from deploy.lab.host import Host
from hostler import Client
from hostler.contract.errors import Cancelled
from hostler.contract.servers import BlockDeviceMapping, Server
from tests.lab.conftest import Lab
from tests.lab.guests import COUNTS, boot, console, counted, is_up, on_its_way, qemus, until

pytestmark = pytest.mark.real
BOOTED = "=== source"


def config_drive(host: Host, server: Server) -> bytes:
    """The one that its guest has on this host."""
    [file] = host.directory.glob(f"**/{server.id}/disk.config")
    return file.read_bytes()


class TestLiveMigrate:
    async def test_a_guest_goes_on_there_and_back(self, the_lab: Lab, client: Client, one: Host, other: Host) -> None:
        server = await boot(client, "runner", one, metadata=COUNTS)
        there = await counted(client, server, beyond=2)
        drive = config_drive(one, server)
        await client.servers.set(server.id, {"changed": "meanwhile"})

        moved = await (await client.servers.live_migrate(server.id, host=other.name)).result()

        assert config_drive(other, server) == drive  # the guest may have it mounted
        assert (moved.status, moved.host, moved.addresses) == ("ACTIVE", other.name, server.addresses)
        assert qemus(the_lab.hosts) == [0, 1]
        there = await counted(client, server, beyond=there)
        assert BOOTED not in await client.servers.console_log(server.id)
        back = await (await client.servers.live_migrate(server.id)).result()
        assert back.host == one.name
        await counted(client, server, beyond=there)
        assert BOOTED not in await client.servers.console_log(server.id)
        assert not (await client.audit(heal=False)).findings

    async def test_with_volumes_that_stay_where_they_are(self, client: Client, one: Host, other: Host) -> None:
        data = await client.volumes.create("data", size_gib=1)
        root = BlockDeviceMapping(
            source_type="image",
            destination_type="volume",
            uuid=(await client.images.show("demo")).id,
            volume_size=1,
            boot_index=0,
            delete_on_termination=True,
        )
        second = BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=data.id)
        server = await boot(client, "from-volume", one, metadata=COUNTS, volumes=[root, second], image=None)
        reached = await counted(client, server)

        moved = await (await client.servers.live_migrate(server.id, host=other.name)).result()

        assert moved.devices == server.devices
        await counted(client, server, beyond=reached)
        await (await client.servers.delete(server.id)).result()
        await client.volumes.delete(data.id)

    @pytest.mark.usefixtures("slow")
    async def test_one_that_takes_long_is_aborted_or_forced(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        server = await boot(client, "slow", one, metadata=COUNTS)
        operation = await client.servers.live_migrate(server.id, host=other.name)
        await on_its_way(operation)
        await operation.cancel()

        with pytest.raises(Cancelled):
            await operation.result()
        assert (await client.servers.show(server.id)).host == one.name
        assert qemus(the_lab.hosts) == [1, 0]
        reached = await counted(client, server, beyond=await counted(client, server))

        operation = await client.servers.live_migrate(server.id, host=other.name)
        await on_its_way(operation)
        await client.operations.force_complete(server.id)
        assert (await operation.result()).host == other.name
        assert qemus(the_lab.hosts) == [0, 1]
        await counted(client, server, beyond=reached)


class TestBetweenTwoBoots:
    async def test_a_guest_is_resized_elsewhere_taken_back_and_comes_off_the_shelf_on_another_host(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        await client.flavors.create("larger", vcpus=1, ram_mib=160)
        server = await boot(client, "mover", one, metadata=COUNTS)
        await counted(client, server)

        resized = await (await client.servers.resize(server.id, "larger")).result()

        assert (resized.status, resized.host, resized.flavor) == ("VERIFY_RESIZE", other.name, "larger")
        assert qemus(the_lab.hosts) == [0, 1]
        await counted(client, server)
        reverted = await (await client.servers.revert_resize(server.id)).result()
        assert (reverted.status, reverted.host, reverted.flavor) == ("ACTIVE", one.name, "tiny")
        assert qemus(the_lab.hosts) == [1, 0]
        await counted(client, server)

        shelved = await (await client.servers.shelve(server.id)).result()
        assert (shelved.status, shelved.host) == ("SHELVED_OFFLOADED", None)
        assert qemus(the_lab.hosts) == [0, 0]
        back = await (await client.servers.unshelve(server.id, host=other.name)).result()
        assert (back.status, back.host, back.addresses) == ("ACTIVE", other.name, server.addresses)
        assert qemus(the_lab.hosts) == [0, 1]
        await counted(client, server)
        assert not (await client.audit(heal=False)).findings


class TestEvacuate:
    async def test_a_host_without_power_loses_its_server_and_comes_back_clean(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        server = await boot(client, "survivor", other, metadata={**COUNTS, "hostler:evacuate": "true"})
        left = await boot(client, "left", other)

        the_lab("kill", other.name)

        async def evacuated() -> bool:
            shown = await client.servers.show(server.id)
            return (shown.status, shown.host) == ("ACTIVE", one.name)

        await until(evacuated)
        assert (await client.servers.show(server.id)).addresses == server.addresses
        await console(client, server, "survivor login:")
        assert (await client.servers.show(left.id)).host == other.name  # nobody asked for it

        the_lab("start", other.name)
        await until(lambda: is_up(client, other))
        assert server.id not in the_lab("exec", other.name, "virsh", "list", "--all", "--uuid")
        assert qemus(the_lab.hosts) == [1, 0]
        host = await client.hosts.show(other.name)
        assert (host.owed, host.down_since) == (0, None)
        await client.hosts.enable(other.name)


class TestDrain:
    async def test_what_runs_is_migrated_live_and_what_is_off_cold(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        runs = await boot(client, "runs", other, metadata=COUNTS)
        off = await boot(client, "off", other)
        await (await client.servers.stop(off.id)).result()
        reached = await counted(client, runs)

        drained = await (await client.hosts.drain(other.name, reason="new memory")).result()

        assert {move.server_id for move in drained.moved} == {runs.id, off.id}
        assert [(await client.servers.show(server.id)).host for server in (runs, off)] == [one.name] * 2
        assert (await client.servers.show(off.id)).status == "SHUTOFF"
        await counted(client, runs, beyond=reached)
        assert qemus(the_lab.hosts) == [1, 0]
        await client.hosts.enable(other.name)
