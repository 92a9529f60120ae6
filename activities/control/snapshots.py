"""Images made of servers: from the row that says so to the store, and which backups are too many."""

from functools import partial

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.images import report_progress
from activities.control.limits import limits_of
from activities.control.taking import take
from activities.control.targets import target_of
from activities.interfaces import snapshots as interface
from activities.interfaces.servers import Target
from activities.interfaces.snapshots import BeginSnapshot, RotateBackups, SnapshotFile
from drivers.image.base import ImageStore
from hostler.contract.errors import Conflict, InvalidState
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat, ImageProperties, ImageStatus, ImageType
from hostler.settings import Settings
from models import Database, DeletedImage, Image, drop_image
from models import Server as Row


class Snapshots(interface.Snapshots):
    """Owner of the rows of such images, while they are made."""

    def __init__(self, database: Database, settings: Settings, store: ImageStore) -> None:
        self._database = database
        self._settings = settings
        self._store = store

    @activity.defn(name="begin_snapshot")
    def begin_snapshot(self, call: BeginSnapshot) -> Target:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginSnapshot) -> Target:
        row = take(session, call)
        target = target_of(session, row, limits_of(self._settings, call.operation))
        if target.root_volume:
            if call.image_type is ImageType.SHELVED:  # a volume outlives its server's host by itself
                return target
            raise InvalidState(
                f"the root disk of server {row.name} is a volume, of which no image is made",
                field="server",
                value=row.id,
                remedy="make an image in the guest, or boot from a local disk",
            )
        image = session.get(Image, call.image_id)
        if image is not None:
            if image.properties.get("instance_uuid") != row.id or image.status is not ImageStatus.SAVING:
                raise _taken(call.image_id, f"image {image.name}")
        elif session.get(DeletedImage, call.image_id) is not None:  # disks may stand on copies of what it was
            raise _taken(call.image_id, "an image that was deleted")
        elif self._store.written_at(call.image_id) is not None:  # it may be the only copy of what a lost row was about
            raise _taken(call.image_id, "a file in the image store")
        else:
            session.add(_row(call, row, session.get(Image, row.image_id) if row.image_id else None))
        return target

    @activity.defn(name="import_snapshot")
    def import_snapshot(self, call: SnapshotFile) -> ImageRef:
        source = self._store.incoming(call.image_id)
        stored = self._store.add(call.image_id, source, call.disk_format, None, report_progress)
        self._database.run(partial(_set_format, call=call))
        return ImageRef(id=call.image_id, disk_format=call.disk_format, **stored.model_dump())

    @activity.defn(name="rotate_backups")
    def rotate_backups(self, call: RotateBackups) -> None:
        """Files first, then rows, so that a call that broke in between can be repeated."""
        with self._database.read() as session:
            server = session.get(Row, call.server_id)
            project = server.project if server is not None else None  # another's images are none of its backups
            query = select(Image).where(Image.project == project, Image.status == ImageStatus.ACTIVE)
            images = session.exec(query.order_by(col(Image.created_at).desc()))
            mine = [image.id for image in images if _is_backup(image, call)]
        for image_id in mine[call.rotation :]:
            self._store.remove(image_id)
            self._database.run(partial(drop_image, image_id=image_id))


def _taken(image_id: str, by: str) -> Conflict:
    return Conflict(f"the UUID {image_id} is taken by {by}", field="image_id", value=image_id, remedy="choose another")


def _row(call: BeginSnapshot, row: Row, source: Image | None) -> Image:
    former = ImageProperties.model_validate(source.properties) if source else ImageProperties()
    properties = ImageProperties(
        architecture=former.architecture,
        hypervisor_type=former.hypervisor_type,
        image_type=call.image_type,
        backup_type=call.backup_type,
        instance_uuid=row.id,
    )
    return Image(
        id=call.image_id,
        name=call.name or f"{row.name}-shelved",
        project=row.project,
        disk_format=DiskFormat.QCOW2,
        min_disk_gib=source.min_disk_gib if source else 0,
        min_ram_mib=source.min_ram_mib if source else 0,
        properties=properties.model_dump(),
    )


def _set_format(session: Session, call: SnapshotFile) -> None:
    image = session.get(Image, call.image_id, with_for_update=True)
    if image is not None:
        image.disk_format = call.disk_format


def _is_backup(image: Image, call: RotateBackups) -> bool:
    wanted = (ImageType.BACKUP, call.backup_type, call.server_id)
    properties = image.properties
    return (properties.get("image_type"), properties.get("backup_type"), properties.get("instance_uuid")) == wanted
