"""Rebuilds: what the server's row and its root disk's become, once."""

from typing import Any

import pytest
from sqlmodel import col, select

from activities.control.guest_plans import plan_guest
from activities.control.rebuilds import Rebuilds
from activities.control.servers import Servers
from activities.interfaces.rebuilds import BeginRebuild, FinishRebuild
from activities.interfaces.servers import Settle
from hostler.contract.errors import Conflict, InvalidRequest, InvalidState, NotFound, NoValidHost
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import OperationName
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.encryption import Key
from hostler.settings import EncryptionSettings, Settings
from models import Allocation, BlockDevice, Database, Host, Image, KeyPair, Server
from tests.activities.control.test_guest_plans import GIB, MIB, NO_KEYS, SMALL, a_host_with_a_server
from tests.activities.given import log, uuid
from tests.rows import a_server, add

RUN, OTHER_RUN = uuid(), uuid()
ERROR = {"created_at": "2026-01-01T00:00:00Z", "error": {"code": "OperationFailed", "message": "it broke"}}


@pytest.fixture
def rebuilds(database: Database) -> Rebuilds:
    return Rebuilds(database, Settings(encryption=EncryptionSettings(keys=Key.generate("test").line)))


@pytest.fixture
def server(database: Database) -> Server:
    return a_host_with_a_server(database, flavor=SMALL.model_copy(update={"disk_gib": 0}).model_dump())


def begin(server: Server, **changes: Any) -> BeginRebuild:
    call = BeginRebuild(
        server_id=server.id,
        project=server.project,
        run_id=RUN,
        operation=OperationName.REBUILD,
        allowed=[VmState.ACTIVE, VmState.STOPPED, VmState.ERROR],
        task_state=TaskState.REBUILDING,
    )
    return call.model_copy(update=changes)


def finish(server: Server, image_id: str, run_id: str = RUN, **changes: Any) -> FinishRebuild:
    call = FinishRebuild(
        server_id=server.id,
        run_id=run_id,
        vm_state=VmState.ACTIVE,
        power_state=PowerState.RUNNING,
        image_id=image_id,
        image_name="next",
        key_name=None,
        events=log(server.id, run_id, "begin_rebuild", "finish_rebuild"),
    )
    return call.model_copy(update=changes)


def row(database: Database, server: Server) -> Server:
    with database.read() as session:
        return session.get_one(Server, server.id)


def an_image(
    database: Database, status: ImageStatus = ImageStatus.ACTIVE, properties: Any = None, size_bytes: int = 5 * MIB
) -> Image:
    image = Image(id=uuid(), name="next", disk_format=DiskFormat.RAW, status=status, virtual_size_bytes=size_bytes)
    image.properties = properties or {}
    add(database, image)
    return image


def test_begun_twice_the_plan_is_the_same(rebuilds: Rebuilds, database: Database, server: Server) -> None:
    image = an_image(database)
    call = begin(server, image="next", admin_password="hunter2")

    plan = rebuilds.begin_rebuild(call)

    assert rebuilds.begin_rebuild(call) == plan
    assert (plan.plan.image.id if plan.plan.image else None, plan.image_name) == (image.id, "next")
    assert plan.plan.guest.disks[0].size_bytes == 5 * MIB
    assert plan.plan.guest.admin_password == "hunter2"
    assert "hunter2" not in f"{call!r} {plan!r}"


@pytest.mark.parametrize(
    ("image", "error"), [("next", Conflict), ("nothing", NotFound)], ids=["still saving", "not there"]
)
def test_what_is_refused_leaves_the_server_free(
    rebuilds: Rebuilds, database: Database, server: Server, image: str, error: type[Exception]
) -> None:
    an_image(database, ImageStatus.SAVING)
    with pytest.raises(error):
        rebuilds.begin_rebuild(begin(server, image=image))
    assert (row(database, server).operation_id, row(database, server).task_state) == (None, None)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"architecture": "aarch64"}, "not of architecture aarch64"),
        ({"hypervisor_type": "lxc"}, "without hypervisor lxc"),
        ({"architecture": "AMD64", "hypervisor_type": "LXC"}, "without hypervisor lxc"),
    ],
    ids=["architecture", "hypervisor", "one of both"],
)
def test_an_image_that_the_servers_host_cannot_run_is_refused(
    rebuilds: Rebuilds, database: Database, server: Server, wanted: dict[str, str], reason: str
) -> None:
    an_image(database, properties=wanted)
    before = row(database, server)

    with pytest.raises(InvalidRequest, match=f"host host of server server cannot run .*: it is {reason}") as refusal:
        rebuilds.begin_rebuild(begin(server, image="next"))

    assert (refusal.value.detail.field, refusal.value.detail.value) == ("image", "next")
    assert refusal.value.remedy
    assert row(database, server) == before


@pytest.mark.parametrize(
    "wanted", [{"architecture": "AMD64", "hypervisor_type": "kvm"}, {"architecture": None}, {}], ids=str
)
def test_an_image_is_for_the_servers_host_where_the_scheduler_would_say_so(
    rebuilds: Rebuilds, database: Database, server: Server, wanted: dict[str, str | None]
) -> None:
    image = an_image(database, properties=wanted)
    plan = rebuilds.begin_rebuild(begin(server, image="next")).plan
    assert plan.image is not None
    assert plan.image.id == image.id


def test_the_image_that_the_server_has_must_be_for_its_host_too(
    rebuilds: Rebuilds, database: Database, server: Server
) -> None:
    with database.write() as session:
        session.get_one(Image, server.image_id).properties = {"architecture": "aarch64"}
    with pytest.raises(InvalidRequest, match="cannot run image base"):
        rebuilds.begin_rebuild(begin(server))


def test_a_shelved_server_is_not_rebuilt(rebuilds: Rebuilds, database: Database) -> None:
    shelved = a_host_with_a_server(database, vm_state=VmState.SHELVED)
    with pytest.raises(InvalidState, match="SHELVED"):
        rebuilds.begin_rebuild(begin(shelved))


def test_finished_twice_it_is_what_it_became(rebuilds: Rebuilds, database: Database, server: Server) -> None:
    image = an_image(database)
    with database.write() as session:
        session.get_one(Server, server.id).fault = ERROR
    rebuilds.begin_rebuild(begin(server, image="next"))
    call = finish(server, image.id, key_name="alice", user_data="bmV3")

    assert rebuilds.finish_rebuild(call) == rebuilds.finish_rebuild(call)

    now = row(database, server)
    assert (now.image_id, now.image_name, now.key_name, now.fault) == (image.id, "next", "alice", None)
    assert (now.operation_id, now.task_state, now.vm_state) == (None, None, VmState.ACTIVE)
    assert now.user_data is not None
    assert "bmV3" not in now.user_data
    with database.read() as session:
        root = session.exec(select(BlockDevice).where(col(BlockDevice.server_id) == server.id)).one()
    assert (root.image_id, root.size_bytes) == (image.id, 5 * MIB)
    rebuilds.begin_rebuild(begin(server, run_id=OTHER_RUN))
    assert rebuilds.begin_rebuild(begin(server, run_id=OTHER_RUN)).plan.guest.user_data == "bmV3"


@pytest.mark.parametrize(("given", "kept"), [(None, True), ("", False)])
def test_its_user_data_stays_unless_it_is_taken_away(
    rebuilds: Rebuilds, database: Database, server: Server, given: str | None, kept: bool
) -> None:
    for run_id, user_data in ((RUN, "Zmlyc3Q="), (OTHER_RUN, given)):
        rebuilds.begin_rebuild(begin(server, run_id=run_id))
        rebuilds.finish_rebuild(finish(server, str(server.image_id), run_id, user_data=user_data))
    assert (row(database, server).user_data is not None) is kept


@pytest.mark.parametrize(("given", "key"), [(None, "ssh-ed25519 A"), ("alice", "ssh-ed25519 B"), ("", None)])
def test_its_key_stays_though_its_key_pair_is_another_now_unless_one_is_given_or_it_is_taken_away(
    rebuilds: Rebuilds, database: Database, given: str | None, key: str | None
) -> None:
    server = a_host_with_a_server(database, key_name="alice", public_keys={"alice": "ssh-ed25519 A"})
    add(database, KeyPair(name="alice", public_key="ssh-ed25519 B", fingerprint=""))
    keys = {"alice": key} if key else {}

    plan = rebuilds.begin_rebuild(begin(server, key_name=given))
    assert plan.plan.guest.public_keys == keys
    with database.write() as session:
        session.delete(session.exec(select(KeyPair)).one())
    ended = finish(server, str(server.image_id), key_name=plan.key_name, public_keys=plan.plan.guest.public_keys)
    rebuilds.finish_rebuild(ended)

    assert row(database, server).public_keys == keys
    assert rebuilds.begin_rebuild(begin(server, run_id=OTHER_RUN)).plan.guest.public_keys == keys


def test_a_run_of_the_release_before_which_does_not_tell_the_key_leaves_that_to_the_key_pair(
    rebuilds: Rebuilds, database: Database
) -> None:
    server = a_host_with_a_server(database, key_name="alice", public_keys={"alice": "ssh-ed25519 A"})
    rebuilds.begin_rebuild(begin(server))
    rebuilds.finish_rebuild(finish(server, str(server.image_id), key_name="alice"))
    assert row(database, server).public_keys is None


def test_a_run_that_no_longer_holds_it_changes_nothing(rebuilds: Rebuilds, database: Database, server: Server) -> None:
    rebuilds.begin_rebuild(begin(server))
    before = row(database, server)
    rebuilds.finish_rebuild(finish(server, uuid(), OTHER_RUN))
    assert row(database, server) == before


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"key_name": "alice"}, "key_name"),
        ({"user_data": "c2VjcmV0"}, "user_data"),
        ({"admin_password": "hunter2"}, "admin_password"),
    ],
    ids=["key", "user data", "password"],
)
def test_what_a_guest_without_a_config_drive_would_never_learn_is_refused(
    rebuilds: Rebuilds, database: Database, given: dict[str, str], field: str
) -> None:
    server = a_host_with_a_server(database, config_drive=False)
    add(database, KeyPair(name="alice", public_key="ssh-ed25519 A", fingerprint=""))

    with pytest.raises(InvalidRequest, match="no config drive") as refusal:
        rebuilds.begin_rebuild(begin(server, **given))

    assert (refusal.value.detail.field, bool(refusal.value.remedy)) == (field, True)
    assert "hunter2" not in refusal.value.detail.model_dump_json()
    assert "c2VjcmV0" not in refusal.value.detail.model_dump_json()
    assert row(database, server).operation_id is None


def test_a_server_without_a_config_drive_is_rebuilt_with_what_it_has_or_without(
    rebuilds: Rebuilds, database: Database
) -> None:
    server = a_host_with_a_server(
        database, config_drive=False, key_name="alice", public_keys={"alice": "ssh-ed25519 A"}
    )
    assert rebuilds.begin_rebuild(begin(server)).key_name == "alice"
    assert rebuilds.begin_rebuild(begin(server, key_name="", user_data="")).key_name is None


class TestRoom:
    """A disk as large as its image, on a host with 100 GiB, of which others have 40."""

    @pytest.fixture
    def server(self, database: Database, server: Server) -> Server:
        other = a_server()
        add(database, other)
        add(database, allocation(server, 1), allocation(server, 40, server_id=other.id))
        return server

    def test_a_larger_image_counts_from_the_beginning_and_once(
        self, rebuilds: Rebuilds, database: Database, server: Server
    ) -> None:
        image = an_image(database, size_bytes=60 * GIB)
        generation = host(database, server).generation

        for _ in range(2):
            rebuilds.begin_rebuild(begin(server, image="next"))
            assert taken(database, server) == 60
        assert host(database, server).generation > generation

        rebuilds.finish_rebuild(finish(server, image.id))
        assert taken(database, server) == 60
        with database.read() as session:
            assert plan_guest(session, NO_KEYS, session.get_one(Server, server.id)).disk_gib == 60

    def test_a_smaller_image_counts_when_the_larger_disk_is_gone(
        self, rebuilds: Rebuilds, database: Database, server: Server
    ) -> None:
        large = an_image(database, size_bytes=60 * GIB).id
        rebuilds.begin_rebuild(begin(server, image=large))
        rebuilds.finish_rebuild(finish(server, large))
        small = an_image(database, size_bytes=2 * GIB)

        rebuilds.begin_rebuild(begin(server, image=small.id, run_id=OTHER_RUN))
        assert taken(database, server) == 60
        generation = host(database, server).generation
        rebuilds.finish_rebuild(finish(server, small.id, OTHER_RUN))

        assert taken(database, server) == 2
        assert host(database, server).generation > generation

    @pytest.mark.parametrize(
        ("changes", "size_gib", "reason"),
        [
            ({}, 61, "with less than 60 GiB of disk free"),
            ({"reserved_disk_gib": 10}, 51, "with less than 50 GiB of disk free"),
            ({"disk_ratio": 4.0}, 101, "101 GiB of disk even when empty"),
        ],
        ids=["taken", "reserved", "larger than the machine"],
    )
    def test_an_image_for_which_the_servers_host_has_no_room_is_refused_as_the_scheduler_would(
        self,
        rebuilds: Rebuilds,
        database: Database,
        server: Server,
        changes: dict[str, float],
        size_gib: int,
        reason: str,
    ) -> None:
        with database.write() as session:
            session.get_one(Host, server.host_id).sqlmodel_update(changes)
        an_image(database, size_bytes=size_gib * GIB)
        before = row(database, server), host(database, server)

        with pytest.raises(NoValidHost, match=f"no room for image next.*: it is .*{reason}") as refusal:
            rebuilds.begin_rebuild(begin(server, image="next"))

        detail = refusal.value.detail
        assert (detail.field, detail.value, bool(detail.remedy)) == ("image", "next", True)
        assert taken(database, server) == 1
        assert (row(database, server), host(database, server)) == before

    def test_overcommitted_disk_is_room(self, rebuilds: Rebuilds, database: Database, server: Server) -> None:
        with database.write() as session:
            session.get_one(Host, server.host_id).disk_ratio = 2.0
        an_image(database, size_bytes=100 * GIB)
        rebuilds.begin_rebuild(begin(server, image="next"))
        assert taken(database, server) == 100

    def test_a_disk_that_does_not_grow_is_refused_nowhere_and_counted_right_from_now_on(
        self, rebuilds: Rebuilds, database: Database, server: Server
    ) -> None:
        with database.write() as session:  # as the release before left it
            session.exec(select(BlockDevice).where(col(BlockDevice.server_id) == server.id)).one().size_bytes = 90 * GIB
        an_image(database, size_bytes=90 * GIB)
        rebuilds.begin_rebuild(begin(server, image="next"))
        assert taken(database, server) == 90

    def test_of_an_image_that_is_deleted_meanwhile_the_larger_disk_goes_on_counting(
        self, rebuilds: Rebuilds, database: Database, server: Server
    ) -> None:
        image = an_image(database, size_bytes=60 * GIB)
        rebuilds.begin_rebuild(begin(server, image="next"))
        with database.write() as session:
            session.delete(session.get_one(Image, image.id))

        rebuilds.finish_rebuild(finish(server, image.id))

        assert taken(database, server) == 60

    @pytest.mark.parametrize("flavor_gib", [0, 1])
    def test_undone_it_takes_what_it_took(
        self, rebuilds: Rebuilds, database: Database, server: Server, flavor_gib: int
    ) -> None:
        with database.write() as session:
            changed = SMALL.model_copy(update={"disk_gib": flavor_gib}).model_dump()
            session.get_one(Server, server.id).flavor = changed
        an_image(database, size_bytes=60 * GIB if flavor_gib == 0 else GIB)
        rebuilds.begin_rebuild(begin(server, image="next"))
        assert taken(database, server) == (1 if flavor_gib else 60)
        generation = host(database, server).generation

        settled(database, server, VmState.ACTIVE)

        assert taken(database, server) == 1
        assert (host(database, server).generation > generation) is (flavor_gib == 0)

    def test_undone_in_error_the_larger_one_goes_on_counting_for_a_rebuild_before_may_have_been_cut_short(
        self, rebuilds: Rebuilds, database: Database, server: Server
    ) -> None:
        an_image(database, size_bytes=60 * GIB)
        rebuilds.begin_rebuild(begin(server, image="next"))
        with database.write() as session:  # as the audit heals it
            cut_short = session.get_one(Server, server.id)
            cut_short.vm_state, cut_short.operation_id, cut_short.task_state = VmState.ERROR, None, None

        rebuilds.begin_rebuild(begin(server, run_id=OTHER_RUN))
        assert taken(database, server) == 60
        settled(database, server, None, OTHER_RUN)

        assert taken(database, server) == 60


def allocation(server: Server, disk_gib: int, **changes: Any) -> Allocation:
    values = {"server_id": server.id, "host_id": server.host_id, "vcpus": 1, "ram_mib": 128, "disk_gib": disk_gib}
    return Allocation(**values | changes)


def taken(database: Database, server: Server) -> int:
    """GiB of disk, in the eyes of the scheduler."""
    with database.read() as session:
        return session.get_one(Allocation, (server.id, server.host_id, False)).disk_gib


def host(database: Database, server: Server) -> Host:
    with database.read() as session:
        return session.get_one(Host, server.host_id)


def settled(database: Database, server: Server, vm_state: VmState | None, run_id: str = RUN) -> None:
    """The rebuild is undone."""
    events = log(server.id, run_id, "begin_rebuild", "settle").model_copy(update={"operation": OperationName.REBUILD})
    call = Settle(server_id=server.id, run_id=run_id, vm_state=vm_state, events=events)
    servers = Servers(database, Settings())
    assert servers.settle(call) == servers.settle(call)
