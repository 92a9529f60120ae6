"""Images: a row and a file, both or neither."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.control.images import Images
from activities.interfaces.images import ForgetImage
from drivers.image.local import LocalImageStore
from hostler.contract.errors import Conflict, ImageRejected, NotFound
from hostler.contract.resources import DiskFormat, ImageCreate
from hostler.contract.resources import Image as View
from models import Database, DeletedImage, Image, drop_image
from tests.activities.given import uuid
from tests.rows import add


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store's directory."""
    return tmp_path / "images"


@pytest.fixture
def images(database: Database, store: Path) -> Images:
    """The activities on images."""
    return Images(database, LocalImageStore(store))


@pytest.fixture
def request_(tmp_path: Path) -> ImageCreate:
    """The import of a small raw file."""
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(2**20))
    return ImageCreate(id=uuid(), name="demo", path=str(file), disk_format="raw")


def found(database: Database, image_id: str) -> Image | None:
    """The image's row."""
    with database.read() as session:
        return session.get(Image, image_id)


def import_(images: Images, request: ImageCreate) -> View:
    """Import it, as a worker would."""
    return images.publish_image(ActivityEnvironment().run(images.import_image, request))


def accept_and_import(images: Images, request: ImageCreate) -> View:
    """All of it."""
    images.accept_image(request)
    return import_(images, request)


def test_imported_twice_it_is_imported_once(images: Images, request_: ImageCreate, store: Path) -> None:
    for _ in range(2):
        images.accept_image(request_)
    first = import_(images, request_)
    assert import_(images, request_) == first
    assert (first.status, first.size_bytes) == ("active", 2**20)
    assert [file.name for file in store.iterdir()] == [request_.id]


def test_an_active_image_is_not_accepted_again_and_not_forgotten(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    images.accept_image(request_)
    import_(images, request_)
    with pytest.raises(Conflict):
        images.accept_image(request_)
    images.forget_image(ForgetImage(image_id=request_.id))
    assert found(database, request_.id) is not None
    assert (store / request_.id).exists()


def test_an_import_neither_takes_over_nor_undoes_an_image_that_is_being_made_of_a_server(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    store.mkdir()
    (store / request_.id).touch()
    row = Image(id=request_.id, name=request_.name, project=request_.project, disk_format=DiskFormat.QCOW2)
    row.properties = {"instance_uuid": uuid()}
    add(database, row)
    with pytest.raises(Conflict, match="is taken by image demo"):
        images.accept_image(request_)
    images.forget_image(ForgetImage(image_id=request_.id))

    assert found(database, request_.id) is not None
    assert (store / request_.id).exists()


def test_one_that_did_not_become_active_is_forgotten(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    images.accept_image(request_)
    for _ in range(2):
        images.forget_image(ForgetImage(image_id=request_.id))
    assert found(database, request_.id) is None
    with pytest.raises(NotFound):
        import_(images, request_)
    images.forget_image(ForgetImage(image_id=request_.id))
    assert list(store.iterdir()) == []


def test_a_refused_import_leaves_the_file_that_was_in_the_store_before(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    store.mkdir()
    orphan = store / request_.id
    orphan.write_bytes(b"the only copy")
    long_ago = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(orphan, (long_ago, long_ago))
    images.accept_image(request_.model_copy(update={"checksum": "0" * 64}))
    with pytest.raises(ImageRejected):
        ActivityEnvironment().run(images.import_image, request_.model_copy(update={"checksum": "0" * 64}))

    images.forget_image(ForgetImage(image_id=request_.id, since=datetime.now(UTC)))

    assert found(database, request_.id) is None
    assert orphan.read_bytes() == b"the only copy"


def deleted(images: Images, request: ImageCreate, database: Database, store: Path) -> View:
    """Import it, and delete it again."""
    view = accept_and_import(images, request)
    LocalImageStore(store).remove(request.id)
    database.run(lambda session: drop_image(session, request.id))
    return view


def test_a_deleted_images_uuid_is_taken_by_the_same_file(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    former = deleted(images, request_, database, store)
    for checksum in (None, former.checksum):
        again = deleted(images, request_.model_copy(update={"name": "again", "checksum": checksum}), database, store)
        assert again.checksum == former.checksum


@pytest.mark.parametrize("checksum", ["0" * 64, None])
def test_a_deleted_images_uuid_is_refused_to_another_file_which_leaves_nothing(
    images: Images, request_: ImageCreate, database: Database, store: Path, checksum: str | None
) -> None:
    """Servers' disks are laid over what has the UUID, wherever they move."""
    former = deleted(images, request_, database, store)
    Path(request_.path).write_bytes(b"x" * 2**20)
    request = request_.model_copy(update={"checksum": checksum})

    for _ in range(2):
        with pytest.raises(ImageRejected, match=f"was another file: .* instead of {former.checksum}") as refused:
            accept_and_import(images, request)
        assert (refused.value.detail.field, refused.value.detail.value) == ("checksum", checksum or former.checksum)
        assert "the same file" in str(refused.value.remedy)
        assert list(store.iterdir()) == []
    images.forget_image(ForgetImage(image_id=request.id))
    assert found(database, request.id) is None

    Path(request_.path).write_bytes(bytes(2**20))
    assert accept_and_import(images, request_).checksum == former.checksum


def test_a_deleted_images_uuid_is_refused_to_another_project(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    deleted(images, request_, database, store)
    with pytest.raises(Conflict, match="deleted image of another project") as refused:
        images.accept_image(request_.model_copy(update={"project": "red"}))
    assert (refused.value.detail.field, refused.value.detail.value) == ("id", request_.id)
    assert found(database, request_.id) is None


def test_what_a_deleted_image_was_is_believed_to_its_project_where_nobody_knows(
    images: Images, request_: ImageCreate, database: Database
) -> None:
    add(database, DeletedImage(id=request_.id, project=request_.project, checksum=""))
    with pytest.raises(Conflict):
        images.accept_image(request_.model_copy(update={"project": "red"}))
    assert accept_and_import(images, request_).status == "active"


def test_that_a_file_is_of_another_format_is_said_also_under_a_deleted_images_uuid(
    images: Images, request_: ImageCreate, database: Database, store: Path
) -> None:
    deleted(images, request_, database, store)
    request = request_.model_copy(update={"disk_format": "qcow2"})
    images.accept_image(request)
    with pytest.raises(ImageRejected) as refused:
        ActivityEnvironment().run(images.import_image, request)
    assert refused.value.detail.field != "checksum"
