"""Shelves: the row, the allocation and the image of a server that rests, each taken and given back once."""

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from activities.control.shelves import Shelves
from activities.interfaces.servers import ServerRef
from activities.interfaces.shelves import BeginUnshelve, FinishOffload, FinishShelve, FinishUnshelve
from drivers.image.local import LocalImageStore
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.resources import DiskFormat, ImageStatus
from hostler.contract.servers import OperationName
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.settings import Settings
from models import Allocation, BlockDevice, Database, DeletedImage, Image, Server
from tests.activities.control.test_guest_plans import a_host_with_a_server
from tests.activities.given import log, uuid
from tests.rows import add

RUN, OTHER_RUN = uuid(), uuid()


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@pytest.fixture
def shelves(database: Database, store: LocalImageStore) -> Shelves:
    return Shelves(database, Settings(), store)


@pytest.fixture
def server(database: Database) -> Server:
    """A server that a run has taken, with what it has of its host."""
    server = a_host_with_a_server(database, operation_id=RUN, task_state=TaskState.SHELVING)
    add(database, Allocation(server_id=server.id, host_id=str(server.host_id), vcpus=1, ram_mib=128, disk_gib=1))
    return server


@pytest.fixture
def image(database: Database, store: LocalImageStore, tmp_path: Path) -> Image:
    """The image that keeps its disk."""
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(2**20))
    image = Image(id=uuid(), name="web-shelved", disk_format=DiskFormat.RAW, status=ImageStatus.ACTIVE)
    image.checksum = store.add(image.id, file, DiskFormat.RAW, None, lambda done, total: None).checksum
    add(database, image)
    return image


def shelve(shelves: Shelves, server: Server, image_id: str | None, *, offloaded: bool, run_id: str = RUN) -> None:
    events = log(server.id, run_id, "begin_snapshot", "finish_shelve")
    call = FinishShelve(server_id=server.id, run_id=run_id, image_id=image_id, offloaded=offloaded, events=events)
    for _ in range(2):
        shelves.finish_shelve(call)


def begin(server: Server, **changes: Any) -> BeginUnshelve:
    call = BeginUnshelve(
        server_id=server.id,
        project=server.project,
        run_id=OTHER_RUN,
        operation=OperationName.UNSHELVE,
        allowed=[VmState.SHELVED, VmState.SHELVED_OFFLOADED],
        task_state=TaskState.UNSHELVING,
    )
    return call.model_copy(update=changes)


def finish(server: Server, run_id: str = OTHER_RUN) -> FinishUnshelve:
    events = log(server.id, run_id, "begin_unshelve", "finish_unshelve")
    return FinishUnshelve(
        server_id=server.id, run_id=run_id, host_id=str(server.host_id), power_state=PowerState.RUNNING, events=events
    )


def row(database: Database, server: Server) -> Server:
    with database.read() as session:
        return session.get_one(Server, server.id)


def allocations(database: Database) -> int:
    with database.read() as session:
        return len(session.exec(select(Allocation)).all())


@pytest.mark.parametrize("offloaded", [False, True])
def test_a_shelved_server_has_its_host_and_allocation_until_it_is_offloaded(
    shelves: Shelves, database: Database, server: Server, image: Image, offloaded: bool
) -> None:
    shelve(shelves, server, image.id, offloaded=offloaded)

    now = row(database, server)
    assert (now.shelved_image_id, now.operation_id, now.shelved_at is not None) == (image.id, None, True)
    assert (now.host_id is None, allocations(database) == 0) == (offloaded, offloaded)
    assert now.vm_state == (VmState.SHELVED_OFFLOADED if offloaded else VmState.SHELVED)


def test_offloaded_by_the_run_that_holds_it_and_by_no_other(
    shelves: Shelves, database: Database, server: Server, image: Image
) -> None:
    shelve(shelves, server, image.id, offloaded=False)
    with database.write() as session:
        session.get_one(Server, server.id).operation_id = RUN

    for run_id, left in ((OTHER_RUN, 1), (RUN, 0), (RUN, 0)):
        events = log(server.id, run_id, "begin", "finish_offload")
        shelves.finish_offload(FinishOffload(server_id=server.id, run_id=run_id, events=events))
        assert allocations(database) == left


@pytest.mark.parametrize("offloaded", [False, True])
def test_the_guest_is_made_of_the_image_where_the_server_has_no_host(
    shelves: Shelves, server: Server, image: Image, offloaded: bool
) -> None:
    shelve(shelves, server, image.id, offloaded=offloaded)

    plan = shelves.begin_unshelve(begin(server))

    assert shelves.begin_unshelve(begin(server)) == plan
    assert plan.offloaded is offloaded
    assert plan.plan.image is not None
    assert plan.plan.image.id == (image.id if offloaded else server.image_id)


def test_it_is_refused_where_its_image_is_gone_and_left_free(
    shelves: Shelves, database: Database, server: Server
) -> None:
    shelve(shelves, server, uuid(), offloaded=True)
    with pytest.raises(Conflict, match="is gone"):
        shelves.begin_unshelve(begin(server))
    assert row(database, server).operation_id is None


def test_one_with_a_host_is_asked_for_nowhere_else(
    shelves: Shelves, database: Database, server: Server, image: Image
) -> None:
    shelve(shelves, server, image.id, offloaded=False)
    with pytest.raises(InvalidRequest, match="still has its host"):
        shelves.begin_unshelve(begin(server, host=server.host_id))
    assert row(database, server).operation_id is None


@pytest.mark.parametrize("broke", [False, True])
def test_back_it_stands_on_the_image_which_is_gone_also_when_it_broke_in_between(
    shelves: Shelves, database: Database, store: LocalImageStore, server: Server, image: Image, broke: bool
) -> None:
    shelve(shelves, server, image.id, offloaded=True)
    shelves.begin_unshelve(begin(server))
    if broke:
        shelves.forget_shelved(ServerRef(server_id=server.id, run_id=OTHER_RUN))

    for _ in range(2):
        shown = shelves.finish_unshelve(finish(server))

    assert (shown.status, shown.shelved_image_id, shown.shelved_at) == ("ACTIVE", None, None)
    assert store.images() == {}
    with database.read() as session:
        assert session.get(Image, image.id) is None
        root = session.exec(select(BlockDevice).where(col(BlockDevice.server_id) == server.id)).one()
        kept = session.get_one(DeletedImage, image.id)
    assert root.image_id == image.id
    assert (kept.project, kept.checksum) == (image.project, image.checksum)
    assert row(database, server).image_id == server.image_id


def test_a_run_that_does_not_hold_it_removes_no_image(
    shelves: Shelves, store: LocalImageStore, server: Server, image: Image
) -> None:
    shelve(shelves, server, image.id, offloaded=True)
    shelves.begin_unshelve(begin(server))

    shelves.forget_shelved(ServerRef(server_id=server.id, run_id=RUN))
    shelves.finish_unshelve(finish(server, RUN))

    assert set(store.images()) == {image.id}


def test_back_on_its_host_its_disk_stands_on_what_it_stood_on(
    shelves: Shelves, database: Database, server: Server, image: Image
) -> None:
    shelve(shelves, server, image.id, offloaded=False)
    shelves.begin_unshelve(begin(server))
    shelves.finish_unshelve(finish(server))
    with database.read() as session:
        root = session.exec(select(BlockDevice).where(col(BlockDevice.server_id) == server.id)).one()
    assert root.image_id == server.image_id
    assert allocations(database) == 1
