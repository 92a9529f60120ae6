"""Moves for real: guests whose serial console shows that they went on, and that their disks came along."""

from datetime import timedelta
from functools import partial

import pytest

from deploy.lab.host import Host
from hostler import Client
from hostler.contract.audit import FindingKind
from hostler.contract.errors import Cancelled, HostlerError
from hostler.contract.servers import BlockDeviceMapping, Server, TimeoutAction
from tests.lab.conftest import Lab
from tests.lab.guests import COUNTS, boot, console, counted, on_its_way, qemus, reread, rereading, until

pytestmark = pytest.mark.real
BOOTED = "=== source"
AFTER_A_WHILE = timedelta(seconds=3)


def config_drive(host: Host, server: Server) -> bytes:
    """The one that its guest has on this host."""
    [file] = host.directory.glob(f"**/{server.id}/disk.config")
    return file.read_bytes()


async def has_status(client: Client, server: Server, status: str) -> bool:
    return (await client.servers.show(server.id)).status == status


async def booted_again(client: Client, server: Server, times: str = r"\d+") -> int:
    """How often its disk was booted from, once it was said to be so often, and not for the first time."""
    said = await console(client, server, rf"{BOOTED}.* first_boot=no boots={times} ")
    return int(said.rpartition("=")[2])


class TestLiveMigrate:
    async def test_a_guest_and_its_disk_go_on_there_and_back(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        server = await boot(client, "runner", one, rereading("/data/marker"), metadata=COUNTS)
        await reread(client, server)
        there = await counted(client, server, beyond=2)
        drive = config_drive(one, server)
        await client.servers.set(server.id, {"changed": "meanwhile"})

        moved = await (await client.servers.live_migrate(server.id, host=other.name)).result()

        assert config_drive(other, server) == drive  # the guest may have it mounted
        assert (moved.status, moved.host, moved.addresses) == ("ACTIVE", other.name, server.addresses)
        assert qemus(the_lab.hosts) == [0, 1, 0]
        there = await counted(client, server, beyond=there)
        await reread(client, server)
        assert BOOTED not in await client.servers.console_log(server.id)
        back = await (await client.servers.live_migrate(server.id)).result()
        assert back.host == one.name
        await counted(client, server, beyond=there)
        written = await reread(client, server)
        assert BOOTED not in await client.servers.console_log(server.id)
        assert not (await client.audit(heal=False)).findings
        await (await client.servers.reboot(server.id, hard=True)).result()
        assert await booted_again(client, server) > written

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
        server = await boot(
            client, "from-volume", one, rereading("/dev/vdb"), metadata=COUNTS, volumes=[root, second], image=None
        )
        await reread(client, server)
        reached = await counted(client, server)

        moved = await (await client.servers.live_migrate(server.id, host=other.name)).result()

        assert moved.devices == server.devices
        await counted(client, server, beyond=reached)
        await reread(client, server)
        await (await client.servers.delete(server.id)).result()
        await client.volumes.delete(data.id)

    @pytest.mark.usefixtures("slow")
    async def test_one_that_takes_long_is_aborted_or_forced_by_somebody_or_when_its_time_is_over(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        server = await boot(client, "slow", one, metadata=COUNTS)
        operation = await client.servers.live_migrate(server.id, host=other.name)
        await on_its_way(operation)
        await operation.cancel()

        with pytest.raises(Cancelled):
            await operation.result()
        assert (await client.servers.show(server.id)).host == one.name
        assert qemus(the_lab.hosts) == [1, 0, 0]
        reached = await counted(client, server, beyond=await counted(client, server))

        late = partial(client.servers.live_migrate, server.id, host=other.name, completion_timeout=timedelta(seconds=2))
        with pytest.raises(HostlerError) as aborted:
            await (await late()).result()
        assert aborted.value.detail.field == "completion_timeout"
        assert qemus(the_lab.hosts) == [1, 0, 0]
        reached = await counted(client, server, beyond=reached)

        operation = await late(timeout_action=TimeoutAction.FORCE_COMPLETE)
        assert (await operation.result()).host == other.name
        assert qemus(the_lab.hosts) == [0, 1, 0]
        await counted(client, server, beyond=reached)


class TestBetweenTwoBoots:
    async def test_a_guest_is_resized_elsewhere_taken_back_shelved_unshelved_and_migrated(
        self, the_lab: Lab, client: Client, one: Host, other: Host
    ) -> None:
        await client.flavors.create("larger", vcpus=1, ram_mib=160)
        server = await boot(client, "mover", one)

        resized = await (await client.servers.resize(server.id, "larger")).result()

        assert (resized.status, resized.host, resized.flavor) == ("VERIFY_RESIZE", other.name, "larger")
        assert qemus(the_lab.hosts) == [0, 1, 0]
        await booted_again(client, server, "2")
        reverted = await (await client.servers.revert_resize(server.id)).result()
        assert (reverted.status, reverted.host, reverted.flavor) == ("ACTIVE", one.name, "tiny")
        assert qemus(the_lab.hosts) == [1, 0, 0]
        await booted_again(client, server, "2")  # from the disk that it had there

        shelved = await (await client.servers.shelve(server.id, offload_after=AFTER_A_WHILE)).result()
        assert (shelved.status, shelved.host) == ("SHELVED", one.name)
        await until(lambda: has_status(client, server, "SHELVED_OFFLOADED"))
        assert (await client.servers.show(server.id)).host is None
        assert qemus(the_lab.hosts) == [0, 0, 0]
        back = await (await client.servers.unshelve(server.id, host=other.name)).result()
        assert (back.status, back.host, back.addresses) == ("ACTIVE", other.name, server.addresses)
        assert qemus(the_lab.hosts) == [0, 1, 0]
        await booted_again(client, server, "3")
        assert not (await client.audit(heal=False)).findings

        await (await client.servers.migrate(server.id, confirm_after=AFTER_A_WHILE)).result()
        await until(lambda: has_status(client, server, "ACTIVE"))
        assert (await client.servers.show(server.id)).host == one.name
        assert qemus(the_lab.hosts) == [1, 0, 0]
        await booted_again(client, server, "4")
        assert not list(other.directory.glob(f"**/{server.id}"))
        left = {finding.kind for finding in (await client.audit(heal=False)).findings}
        assert left == {FindingKind.CACHED_IMAGE}  # the shelf's, which nobody has any more


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
        assert qemus(the_lab.hosts) == [1, 0, 0]
        await client.hosts.enable(other.name)
