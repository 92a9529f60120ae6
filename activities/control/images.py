"""Images: into the store, with a row that says so."""

from datetime import timedelta
from pathlib import Path

from sqlmodel import Session
from temporalio import activity

from activities.control.views import image_view
from activities.interfaces import images as interface
from activities.interfaces.images import ForgetImage
from drivers.image.base import ImageStore
from hostler.contract import resources
from hostler.contract.errors import Conflict, ImageRejected, NotFound
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat, ImageCreate, ImageStatus
from hostler.contract.validation import check_image
from models import Database, DeletedImage, Image

SKEW = timedelta(minutes=1)
"""By which the clocks of Temporal and of the store's file system may differ."""


def report_progress(done: int, total: int) -> None:
    """How far an import is, in the step's heartbeat."""
    activity.heartbeat(f"{done * 100 // max(total, 1)} % of {total // 2**20} MiB")


class Images(interface.Images):
    """Owner of the image rows and of the store."""

    def __init__(self, database: Database, store: ImageStore) -> None:
        self._database = database
        self._store = store

    @activity.defn(name="accept_image")
    def accept_image(self, call: ImageCreate) -> None:
        check_image(call)

        def change(session: Session) -> None:
            row = session.get(Image, call.id)
            if row is None:
                _check_deleted(session, call)
                session.add(
                    Image(
                        id=call.id,
                        name=call.name,
                        project=call.project,
                        disk_format=DiskFormat(call.disk_format),
                        min_disk_gib=call.min_disk_gib,
                        min_ram_mib=call.min_ram_mib,
                        properties=call.properties.model_dump(),
                    )
                )
            elif (row.name, row.project, row.status) != (call.name, call.project, ImageStatus.SAVING) or _made_of(row):
                raise Conflict(
                    f"the UUID {call.id} is taken by image {row.name}",
                    field="id",
                    value=call.id,
                    remedy="choose another",
                )

        self._database.run(change)

    @activity.defn(name="import_image")
    def import_image(self, call: ImageCreate) -> ImageRef:
        """See the interface. The store itself compares: then what is another file never gets its name there."""
        disk_format = DiskFormat(call.disk_format)
        with self._database.read() as session:
            former = _former_checksum(session, call.id)
        try:
            stored = self._store.add(call.id, Path(call.path), disk_format, call.checksum or former, report_progress)
        except ImageRejected as error:
            if former is None or error.detail.field != "checksum":
                raise
            raise _another_file(call, former, str(error)) from error
        return ImageRef(id=call.id, disk_format=disk_format, **stored.model_dump())

    @activity.defn(name="publish_image")
    def publish_image(self, call: ImageRef) -> resources.Image:
        def change(session: Session) -> resources.Image:
            row = session.get(Image, call.id, with_for_update=True)
            if row is None:
                raise NotFound(f"image {call.id} is gone", field="image", value=call.id)
            row.size_bytes, row.virtual_size_bytes = call.size_bytes, call.virtual_size_bytes
            row.checksum, row.status = call.checksum, ImageStatus.ACTIVE
            return image_view(row)

        return self._database.run(change)

    @activity.defn(name="forget_image")
    def forget_image(self, call: ForgetImage) -> None:
        """An image that became active is left: then this is the undo of a repeated, refused import."""

        def change(session: Session) -> bool:
            row = session.get(Image, call.image_id, with_for_update=True)
            if row is None:
                return call.made_of is None
            if row.status is ImageStatus.ACTIVE or _made_of(row) != call.made_of:
                return False
            session.delete(row)
            return True

        if self._database.run(change) and not self._was_there_before(call):
            self._store.remove(call.image_id)

    def _was_there_before(self, call: ForgetImage) -> bool:
        """Whether somebody tried to give a file that is in the store its row again; it is still the only copy."""
        written = self._store.written_at(call.image_id)
        return written is not None and call.since is not None and written < call.since - SKEW


def _made_of(row: Image) -> str | None:
    """The server of which an operation makes the image: no import takes it over, or undoes it."""
    return row.properties.get("instance_uuid")


def _check_deleted(session: Session, call: ImageCreate) -> None:
    """What was deleted is imported again as it was, or under another UUID.

    Raises:
        Conflict: it was another project's.
        ImageRejected: it was another file.
    """
    deleted = session.get(DeletedImage, call.id)
    if deleted is not None and deleted.project != call.project:
        raise Conflict(
            f"the UUID {call.id} is that of a deleted image of another project",
            field="id",
            value=call.id,
            remedy="choose another; the image itself can be imported again in the project that it was of",
        )
    former = _former_checksum(session, call.id)
    if former is not None and call.checksum not in (None, former):
        raise _another_file(call, former, f"the declared SHA-256 is {call.checksum} instead of {former}")


def _former_checksum(session: Session, image_id: str) -> str | None:
    """That of the deleted image of this UUID; None when there was none, or nobody knows."""
    deleted = session.get(DeletedImage, image_id)
    return (deleted.checksum or None) if deleted is not None else None


def _another_file(call: ImageCreate, former: str, why: str) -> ImageRejected:
    return ImageRejected(
        f"image {call.id}, which was deleted, was another file: {why}",
        field="checksum",
        value=call.checksum or former,
        remedy="import the same file (`sha256sum FILE`), as disks may stand on it, or this one under another UUID",
    )
