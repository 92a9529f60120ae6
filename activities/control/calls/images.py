"""Images; importing one is a workflow."""

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.find import find
from activities.control.views import image_view
from drivers.image.base import ImageStore
from hostler.contract.calls import DELETE_IMAGE, LIST_IMAGES, SHOW_IMAGE, Filter, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.resources import Image, ImageStatus
from models import Database
from models import Image as Row


class ImageCalls:
    """Guests keep a copy of their image on their host, so deleting one harms none of them."""

    def __init__(self, database: Database, store: ImageStore) -> None:
        self._database = database
        self._store = store

    @activity.defn(name=LIST_IMAGES.name)
    def list_images(self, call: Filter) -> list[Image]:
        """All of the project's."""
        query = select(Row).order_by(col(Row.name), col(Row.id))
        if not call.all_projects:
            query = query.where(Row.project == call.project)
        with self._database.read() as session:
            return [image_view(row) for row in session.exec(query).all()]

    @activity.defn(name=SHOW_IMAGE.name)
    def show_image(self, call: Ref) -> Image:
        """One."""
        with self._database.read() as session:
            return image_view(find(session, Row, call.ref, call.project))

    @activity.defn(name=DELETE_IMAGE.name)
    def delete_image(self, call: Ref) -> Nothing:
        """Remove the file, then the row, so that a call that broke between them can be repeated."""

        def busy(session: Session) -> str:
            row = find(session, Row, call.ref, call.project)
            if row.status is not ImageStatus.ACTIVE:
                raise Conflict(
                    f"image {row.name} is still being imported",
                    field="image",
                    value=call.ref,
                    remedy=f"wait, or cancel the workflow image:{row.id}",
                )
            return row.id

        with self._database.read() as session:
            image_id = busy(session)
        self._store.remove(image_id)
        self._database.run(lambda session: _forget(session, image_id))
        return Nothing()


def _forget(session: Session, image_id: str) -> None:
    row = session.get(Row, image_id)
    if row is not None:
        session.delete(row)
