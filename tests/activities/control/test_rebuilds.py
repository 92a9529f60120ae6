"""Rebuilds: what the server's row and its root disk's become, once."""

from typing import Any

import pytest
from sqlmodel import col, select

from activities.control.rebuilds import Rebuilds
from activities.interfaces.rebuilds import BeginRebuild, FinishRebuild
from hostler.contract.errors import Conflict, InvalidRequest, InvalidState, NotFound
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import OperationName
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.encryption import Key
from hostler.settings import EncryptionSettings, Settings
from models import BlockDevice, Database, Image, KeyPair, Server
from tests.activities.control.test_guest_plans import MIB, SMALL, a_host_with_a_server
from tests.activities.given import log, uuid
from tests.rows import add

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


def an_image(database: Database, status: ImageStatus = ImageStatus.ACTIVE, properties: Any = None) -> Image:
    image = Image(id=uuid(), name="next", disk_format=DiskFormat.RAW, status=status, virtual_size_bytes=5 * MIB)
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
