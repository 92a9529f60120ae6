"""Guest plans: what a server's rows say of its guest, as it is and under another flavor."""

from typing import Any

import pytest
from sqlmodel import col, select

from activities.control.guest_plans import disks_of, plan_guest, resized, write_disks
from hostler.contract.errors import InvalidRequest, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk
from hostler.contract.resources import DiskFormat, Flavor, ImageStatus
from hostler.contract.servers import DestinationType, SourceType
from hostler.contract.states import VmState
from hostler.encryption import Keys
from models import BlockDevice, Database, Image, KeyPair, Network, Port, Server, Volume
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add

GIB, MIB = 2**30, 2**20
NO_KEYS = Keys([])
SMALL = Flavor(id=uuid(), name="small", vcpus=1, ram_mib=128, disk_gib=1)


def a_device(server_id: str, kind: DiskKind = DiskKind.ROOT, position: int = 0, **changes: Any) -> BlockDevice:
    """A block device of 1 GiB on the server's host."""
    values: dict[str, Any] = {
        "id": uuid(),
        "server_id": server_id,
        "position": position,
        "kind": kind,
        "device": f"vd{'abcdef'[position]}",
        "size_bytes": GIB,
        "source_type": SourceType.IMAGE if kind is DiskKind.ROOT else SourceType.BLANK,
        "destination_type": DestinationType.LOCAL,
        "bootable": kind is DiskKind.ROOT,
    }
    return BlockDevice(**values | changes)


def a_host_with_a_server(database: Database, **changes: Any) -> Server:
    """A server that is up: its host, its image, its root disk."""
    host, image = a_host(), Image(id=uuid(), name="base", disk_format=DiskFormat.RAW, status=ImageStatus.ACTIVE)
    image.virtual_size_bytes = MIB
    values = {"vm_state": VmState.ACTIVE, "flavor": SMALL.model_dump(), "image_id": image.id, "host_id": host.id}
    server = a_server(**values | changes)
    add(database, host, image)
    add(database, server)
    add(database, a_device(server.id, image_id=image.id))
    return server


@pytest.fixture
def server(database: Database) -> Server:
    return a_host_with_a_server(database)


def disk(kind: DiskKind, device: str, size_bytes: int = GIB, **changes: Any) -> GuestDisk:
    return GuestDisk(kind=kind, device=device, size_bytes=size_bytes, **changes)


class TestPlan:
    """The guest as it is."""

    def test_it_has_what_the_rows_say(self, database: Database) -> None:
        server = a_host_with_a_server(database, key_name="alice", user_data="aGk=", metadata_={"a": "b"})
        network = Network(id=uuid(), name="net", cidr="10.0.0.0/24", gateway="10.0.0.1")
        add(database, network, KeyPair(name="alice", public_key="ssh-ed25519 A", fingerprint=""))
        add(database, *[_port(server, network, position) for position in (1, 0)])

        with database.read() as session:
            plan = plan_guest(session, NO_KEYS, session.get_one(Server, server.id))

        guest = plan.guest
        assert (guest.vcpus, guest.ram_mib, guest.flavor, guest.name) == (1, 128, "small", server.name)
        assert (guest.public_keys, guest.user_data, guest.metadata) == ({"alice": "ssh-ed25519 A"}, "aGk=", {"a": "b"})
        assert [port.ip for port in guest.ports] == ["10.0.0.10", "10.0.0.11"]
        assert plan.image is not None
        assert (plan.image.id, plan.disk_gib, plan.volumes) == (server.image_id, 1, [])

    @pytest.mark.parametrize("now", [None, "ssh-ed25519 B"], ids=["deleted", "replaced"])
    def test_it_keeps_its_key_whatever_becomes_of_the_key_pair(self, database: Database, now: str | None) -> None:
        server = a_host_with_a_server(database, key_name="alice", public_keys={"alice": "ssh-ed25519 A"})
        if now is not None:
            add(database, KeyPair(name="alice", public_key=now, fingerprint=""))
        with database.read() as session:
            plan = plan_guest(session, NO_KEYS, session.get_one(Server, server.id))
        assert plan.guest.public_keys == {"alice": "ssh-ed25519 A"}

    def test_a_key_that_is_asked_for_is_that_of_the_key_pair_there_is(self, database: Database) -> None:
        server = a_host_with_a_server(database, key_name="alice", public_keys={"alice": "ssh-ed25519 A"})
        add(database, KeyPair(name="alice", public_key="ssh-ed25519 B", fingerprint=""))
        with database.read() as session:
            row = session.get_one(Server, server.id)
            assert plan_guest(session, NO_KEYS, row, key_name="alice").guest.public_keys == {"alice": "ssh-ed25519 B"}
            assert plan_guest(session, NO_KEYS, row, key_name="").guest.public_keys == {}

    @pytest.mark.parametrize(
        ("name", "keys"), [("bob", {"bob": "ssh-ed25519 B"}), (None, {})], ids=["another", "none any more"]
    )
    def test_a_key_that_the_release_before_gave_it_is_not_that_which_it_kept(
        self, database: Database, name: str | None, keys: dict[str, str]
    ) -> None:
        server = a_host_with_a_server(database, key_name=name, public_keys={"alice": "ssh-ed25519 A"})
        add(database, KeyPair(name="bob", public_key="ssh-ed25519 B", fingerprint=""))
        with database.read() as session:
            plan = plan_guest(session, NO_KEYS, session.get_one(Server, server.id))
        assert plan.guest.public_keys == keys

    @pytest.mark.parametrize("status", [None, ImageStatus.SAVING])
    def test_a_root_disk_whose_image_is_not_in_the_catalogue_has_none(
        self, database: Database, server: Server, status: ImageStatus | None
    ) -> None:
        with database.write() as session:
            image = session.get_one(Image, server.image_id)
            if status is None:
                session.delete(image)
            else:
                image.status = status
        with database.read() as session:
            plan = plan_guest(session, NO_KEYS, session.get_one(Server, server.id))
        assert (plan.image, plan.guest.disks[0].image) == (None, None)

    def test_local_disks_take_whole_gibs_and_volumes_none(self, database: Database, server: Server) -> None:
        volume = Volume(id=uuid(), size_gib=5, host_id=server.host_id)
        add(database, volume)
        add(
            database,
            a_device(server.id, DiskKind.SWAP, 1, size_bytes=MIB),
            a_device(server.id, DiskKind.DATA, 2, size_bytes=5 * GIB, volume_id=volume.id),
        )
        with database.read() as session:
            plan = plan_guest(session, NO_KEYS, session.get_one(Server, server.id))
        assert plan.disk_gib == 2
        assert [(work.volume_id, work.host.id) for work in plan.volumes] == [(volume.id, server.host_id)]

    def test_a_volume_on_no_host_cannot_be_connected(self, database: Database, server: Server) -> None:
        volume = Volume(id=uuid(), size_gib=5)
        add(database, volume, a_device(server.id, DiskKind.DATA, 1, volume_id=volume.id))
        with database.read() as session, pytest.raises(Unavailable, match="on no host"):
            plan_guest(session, NO_KEYS, session.get_one(Server, server.id))


def _port(server: Server, network: Network, position: int) -> Port:
    return Port(
        id=uuid(),
        network_id=network.id,
        server_id=server.id,
        mac=f"fa:16:3e:00:00:0{position}",
        ip=f"10.0.0.1{position}",
        position=position,
    )


class TestResized:
    """The disks under another flavor."""

    ROOT, EPHEMERAL, SWAP = disk(DiskKind.ROOT, "vda"), disk(DiskKind.EPHEMERAL, "vdb"), disk(DiskKind.SWAP, "vdc", MIB)

    def new(self, **changes: int) -> Flavor:
        return SMALL.model_copy(update={"id": uuid(), "name": "other", **changes})

    def test_local_disks_grow_with_it(self) -> None:
        old = self.new(ephemeral_gib=1)
        disks = resized([self.ROOT, self.EPHEMERAL], old, self.new(disk_gib=2, ephemeral_gib=3))
        assert [(one.device, one.size_bytes // GIB) for one in disks] == [("vda", 2), ("vdb", 3)]

    def test_a_root_disk_that_is_a_volume_stays(self) -> None:
        root = self.ROOT.model_copy(update={"volume_id": uuid()})
        assert resized([root], SMALL, self.new(disk_gib=9)) == [root]

    def test_swap_is_as_large_as_it_says_in_its_place_or_gone(self) -> None:
        disks = [self.ROOT, self.EPHEMERAL, self.SWAP]
        old = self.new(ephemeral_gib=1, swap_mib=1)
        larger = resized(disks, old, self.new(ephemeral_gib=1, swap_mib=7))
        assert [(one.kind, one.device, one.size_bytes // MIB) for one in larger[2:]] == [(DiskKind.SWAP, "vdc", 7)]
        assert resized(disks, old, self.new(ephemeral_gib=1)) == disks[:2]

    def test_what_was_not_there_takes_the_next_free_device(self) -> None:
        data = disk(DiskKind.DATA, "vdb", volume_id=uuid())
        disks = resized([self.ROOT, data], SMALL, self.new(ephemeral_gib=1, swap_mib=1))
        assert {one.device: one.kind for one in disks[2:]} == {"vdc": DiskKind.EPHEMERAL, "vdd": DiskKind.SWAP}

    def test_a_new_ephemeral_disk_does_not_take_the_device_of_swap_that_was_there(self) -> None:
        swap = disk(DiskKind.SWAP, "vdb", MIB)
        for swap_mib in (1, 0):
            disks = resized([self.ROOT, swap], self.new(swap_mib=1), self.new(ephemeral_gib=1, swap_mib=swap_mib))
            assert {one.device for one in disks if one.kind is DiskKind.EPHEMERAL} == {"vdc"}
            assert len({one.device for one in disks}) == len(disks)

    @pytest.mark.parametrize("smaller", [{"disk_gib": 1, "ephemeral_gib": 2}, {"disk_gib": 2, "ephemeral_gib": 1}])
    def test_none_shrinks(self, smaller: dict[str, int]) -> None:
        disks = [disk(DiskKind.ROOT, "vda", 2 * GIB), disk(DiskKind.EPHEMERAL, "vdb", 2 * GIB)]
        with pytest.raises(InvalidRequest, match="do not shrink"):
            resized(disks, self.new(disk_gib=2, ephemeral_gib=2), self.new(**smaller))


class TestWriteDisks:
    """The rows follow."""

    SWAP = disk(DiskKind.SWAP, "vdb", MIB)

    def test_they_become_what_the_guest_has_and_volumes_stay(self, database: Database, server: Server) -> None:
        add(
            database,
            a_device(server.id, DiskKind.SWAP, 1),
            a_device(server.id, DiskKind.DATA, 2, volume_id=uuid()),
        )
        root = disk(DiskKind.ROOT, "vda", 2 * GIB)
        ephemeral = disk(DiskKind.EPHEMERAL, "vdd", GIB)

        for _ in range(2):
            database.run(lambda session: write_disks(session, server.id, [root, ephemeral]))

        with database.read() as session:
            rows = session.exec(select(BlockDevice).order_by(col(BlockDevice.position))).all()
            found = [(row.device, row.kind, row.size_bytes // GIB) for row in rows]
            root_now = disks_of(session, session.get_one(Server, server.id))[0]
        assert found == [("vda", DiskKind.ROOT, 2), ("vdc", DiskKind.DATA, 1), ("vdd", DiskKind.EPHEMERAL, 1)]
        assert root_now.image is not None
        assert root_now.bootable

    def test_those_of_servers_whose_uuids_begin_alike_are_their_own(self, database: Database, server: Server) -> None:
        alike = a_server(id=f"{server.id[:-1]}{'1' if server.id[-1] == '0' else '0'}")
        add(database, alike)
        for one in (server, alike):
            with database.write() as session:
                write_disks(session, one.id, [disk(DiskKind.ROOT, "vda"), self.SWAP])
        with database.read() as session:
            assert [row.device for row in disks_of(session, alike)] == ["vda", "vdb"]
            assert [row.device for row in disks_of(session, server)] == ["vda", "vdb"]
