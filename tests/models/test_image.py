"""Images that are deleted: their UUIDs are not forgotten."""

from hostler.contract.resources import DiskFormat, ImageStatus
from models import Database, DeletedImage, Image, drop_image
from tests.activities.given import uuid
from tests.rows import add


def an_image(database: Database, status: ImageStatus, checksum: str = "0" * 64, image_id: str | None = None) -> str:
    """An image of the project red."""
    image_id = image_id or uuid()
    add(
        database,
        Image(id=image_id, name="demo", project="red", disk_format=DiskFormat.RAW, status=status, checksum=checksum),
    )
    return image_id


def dropped(database: Database, image_id: str) -> tuple[str, str] | None:
    """Project and checksum of the deleted image, once it is dropped."""
    database.run(lambda session: drop_image(session, image_id))
    with database.read() as session:
        assert session.get(Image, image_id) is None
        deleted = session.get(DeletedImage, image_id)
    return (deleted.project, deleted.checksum) if deleted is not None else None


def test_an_image_that_could_be_used_is_known_as_deleted(database: Database) -> None:
    image_id = an_image(database, ImageStatus.ACTIVE)
    assert dropped(database, image_id) == ("red", "0" * 64)
    assert dropped(database, image_id) == ("red", "0" * 64)


def test_an_image_that_never_could_be_used_leaves_nothing(database: Database) -> None:
    assert dropped(database, an_image(database, ImageStatus.SAVING, "")) is None
    assert dropped(database, uuid()) is None


def test_an_image_that_was_imported_again_can_be_deleted_again(database: Database) -> None:
    image_id = an_image(database, ImageStatus.ACTIVE)
    dropped(database, image_id)
    an_image(database, ImageStatus.SAVING, "", image_id)
    assert dropped(database, image_id) == ("red", "0" * 64)
    an_image(database, ImageStatus.ACTIVE, image_id=image_id)
    assert dropped(database, image_id) == ("red", "0" * 64)
