"""Snapshots on the control worker: the image's row, its way into the store, and the rotation of backups."""

import errno
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select
from temporalio.testing import ActivityEnvironment

from activities.control.snapshots import Snapshots
from activities.interfaces.snapshots import BeginSnapshot, RotateBackups, SnapshotFile
from drivers.image import copying
from drivers.image.local import LocalImageStore
from hostler.contract.errors import Conflict, InvalidState, OperationFailed
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat, ImageStatus, ImageType
from hostler.contract.servers import OperationName
from hostler.contract.states import TaskState, VmState
from hostler.settings import Settings
from models import BlockDevice, Database, DeletedImage, Image, Server, now
from tests.activities.control.test_guest_plans import a_host_with_a_server
from tests.activities.given import uuid
from tests.rows import add

RUN = uuid()


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@pytest.fixture
def snapshots(database: Database, store: LocalImageStore) -> Snapshots:
    return Snapshots(database, Settings(), store)


@pytest.fixture
def server(database: Database) -> Server:
    return a_host_with_a_server(database)


def begin(server: Server, **changes: Any) -> BeginSnapshot:
    call = BeginSnapshot(
        server_id=server.id,
        project=server.project,
        run_id=RUN,
        operation=OperationName.SNAPSHOT,
        allowed=[VmState.ACTIVE],
        task_state=TaskState.IMAGE_SNAPSHOT,
        image_id=uuid(),
        name="web-1",
        image_type=ImageType.SNAPSHOT,
    )
    return call.model_copy(update=changes)


def image(database: Database, image_id: str) -> Image | None:
    with database.read() as session:
        return session.get(Image, image_id)


def test_begun_twice_there_is_one_image_that_is_saving(
    snapshots: Snapshots, database: Database, server: Server
) -> None:
    call = begin(server)
    assert snapshots.begin_snapshot(call) == snapshots.begin_snapshot(call)

    row = image(database, call.image_id)
    assert row is not None
    assert (row.status, row.name, row.project) == (ImageStatus.SAVING, "web-1", server.project)
    assert (row.properties["image_type"], row.properties["instance_uuid"]) == ("snapshot", server.id)


def test_an_image_without_a_name_is_called_after_its_server(
    snapshots: Snapshots, database: Database, server: Server
) -> None:
    call = begin(server, name="", image_type=ImageType.SHELVED)
    snapshots.begin_snapshot(call)
    row = image(database, call.image_id)
    assert row is not None
    assert row.name == "server-shelved"


@pytest.mark.parametrize("status", ImageStatus)
def test_another_images_uuid_is_refused_and_the_server_is_free(
    snapshots: Snapshots, database: Database, server: Server, status: ImageStatus
) -> None:
    taken = Image(id=uuid(), name="theirs", disk_format=DiskFormat.RAW, status=status)
    add(database, taken)

    with pytest.raises(Conflict, match="taken by image theirs"):
        snapshots.begin_snapshot(begin(server, image_id=taken.id))

    with database.read() as session:
        assert session.get_one(Server, server.id).operation_id is None


def test_a_deleted_images_uuid_is_refused(snapshots: Snapshots, database: Database, server: Server) -> None:
    deleted = DeletedImage(id=uuid(), project=server.project, checksum="")
    add(database, deleted)

    with pytest.raises(Conflict, match="taken by an image that was deleted"):
        snapshots.begin_snapshot(begin(server, image_id=deleted.id))

    assert image(database, deleted.id) is None
    with database.read() as session:
        assert session.get_one(Server, server.id).operation_id is None


def test_of_a_volume_no_image_is_made_except_that_a_server_can_be_shelved_without(
    snapshots: Snapshots, database: Database, server: Server
) -> None:
    with database.write() as session:
        session.exec(select(BlockDevice).where(col(BlockDevice.server_id) == server.id)).one().volume_id = uuid()

    with pytest.raises(InvalidState, match="is a volume"):
        snapshots.begin_snapshot(begin(server))
    call = begin(server, image_type=ImageType.SHELVED)

    assert snapshots.begin_snapshot(call).root_volume
    assert image(database, call.image_id) is None


def test_imported_twice_it_is_in_the_store_once_in_the_format_that_it_came_in(
    snapshots: Snapshots, database: Database, server: Server, store: LocalImageStore
) -> None:
    call = begin(server)
    snapshots.begin_snapshot(call)
    incoming = store.incoming(call.image_id)
    incoming.parent.mkdir(parents=True)
    incoming.write_bytes(bytes(2**20))
    file = SnapshotFile(image_id=call.image_id, disk_format=DiskFormat.RAW)

    first: ImageRef = ActivityEnvironment().run(snapshots.import_snapshot, file)
    incoming.unlink()

    assert ActivityEnvironment().run(snapshots.import_snapshot, file) == first
    assert (first.disk_format, first.virtual_size_bytes) == (DiskFormat.RAW, 2**20)
    row = image(database, call.image_id)
    assert row is not None
    assert (row.disk_format, row.status) == (DiskFormat.RAW, ImageStatus.SAVING)


def test_a_store_without_room_is_an_end_and_not_a_reason_to_fill_it_again_and_again(
    snapshots: Snapshots, server: Server, store: LocalImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> copying.Digest:
        raise OSError(errno.ENOSPC, "No space left on device")

    call = begin(server)
    snapshots.begin_snapshot(call)
    incoming = store.incoming(call.image_id)
    incoming.parent.mkdir(parents=True)
    incoming.write_bytes(bytes(2**20))
    monkeypatch.setattr(copying, "write_out", full)

    file = SnapshotFile(image_id=call.image_id, disk_format=DiskFormat.RAW)
    with pytest.raises(OperationFailed, match="no room") as caught:
        ActivityEnvironment().run(snapshots.import_snapshot, file)

    assert caught.value.to_application_error().non_retryable
    assert caught.value.remedy is not None


def test_a_rotation_that_broke_after_a_file_was_removed_is_done_again(
    snapshots: Snapshots, database: Database, server: Server, store: LocalImageStore, tmp_path: Path
) -> None:
    properties: dict[str, str | None] = {"image_type": "backup", "backup_type": "daily", "instance_uuid": server.id}
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(2**20))
    backups = []
    for age in range(4):
        created_at = now() - timedelta(days=age)
        one = Image(id=uuid(), name=f"{age}", disk_format=DiskFormat.RAW, created_at=created_at, properties=properties)
        one.status = ImageStatus.SAVING if age == 3 else ImageStatus.ACTIVE
        store.add(one.id, file, DiskFormat.RAW, None, lambda done, total: None)
        backups.append(one.id)
        add(database, one)
    store.remove(backups[2])

    for _ in range(2):
        snapshots.rotate_backups(RotateBackups(server_id=server.id, backup_type="daily", rotation=1))

    with database.read() as session:
        assert set(session.exec(select(Image.name).where(Image.name != "base"))) == {"0", "3"}
    assert set(store.images()) == {backups[0], backups[3]}


def test_a_rotation_counts_and_removes_no_other_projects_images_whatever_they_say(
    snapshots: Snapshots, database: Database, server: Server, store: LocalImageStore
) -> None:
    """An import could say so before it was refused that."""
    properties: dict[str, str | None] = {"image_type": "backup", "backup_type": "daily", "instance_uuid": server.id}
    values: dict[str, Any] = {"disk_format": DiskFormat.RAW, "status": ImageStatus.ACTIVE, "properties": properties}
    ours = values | {"project": server.project, "created_at": now() - timedelta(days=1)}
    theirs = values | {"project": "red"}
    add(database, Image(id=uuid(), name="ours", **ours), *(Image(id=uuid(), name=f"{n}", **theirs) for n in range(2)))

    snapshots.rotate_backups(RotateBackups(server_id=server.id, backup_type="daily", rotation=1))

    with database.read() as session:
        assert set(session.exec(select(Image.name).where(Image.name != "base"))) == {"ours", "0", "1"}
