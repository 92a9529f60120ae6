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
from hostler.contract.resources import Image as View
from hostler.contract.resources import ImageCreate
from models import Database, Image
from tests.activities.given import uuid


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
