"""Images; importing one is a workflow."""

import asyncio
from functools import partial

from sqlmodel import col, select
from temporalio import activity

from activities.control.find import find
from activities.control.temporal import Temporal
from activities.control.views import image_view
from drivers.image.base import ImageStore
from hostler.contract.calls import DELETE_IMAGE, LIST_IMAGES, SHOW_IMAGE, Filter, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.names import image_workflow_id, server_workflow_id
from hostler.contract.resources import Image, ImageStatus, ImageType
from models import Database, Server, drop_image
from models import Image as Row


class ImageCalls:
    """Guests keep a copy of their image on their host, so deleting one harms none of them."""

    def __init__(self, database: Database, store: ImageStore, temporal: Temporal) -> None:
        self._database = database
        self._store = store
        self._temporal = temporal

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
    async def delete_image(self, call: Ref) -> Nothing:
        """Remove the file, then the row, so that a call that broke between them can be repeated."""
        image = await asyncio.to_thread(self.show_image, call)
        if image.status != ImageStatus.ACTIVE or image.properties.image_type == ImageType.SHELVED:
            await self._check_not_importing(image)
        await asyncio.to_thread(self._check_not_shelved, image)  # after that: a shelve may just have ended
        await asyncio.to_thread(self._remove, image.id)
        return Nothing()

    async def _check_not_importing(self, image: Image) -> None:
        """A restored database has images as saving that nothing imports any more: these may be deleted."""
        made_of = image.properties.instance_uuid
        workflow_id = server_workflow_id(made_of) if made_of else image_workflow_id(image.id)
        if await self._temporal.open_runs([workflow_id]):
            raise Conflict(
                f"image {image.name} is still being {'made of its server' if made_of else 'imported'}",
                field="image",
                value=image.name,
                remedy=f"wait, or cancel the workflow {workflow_id}",
            )

    def _check_not_shelved(self, image: Image) -> None:
        """A server on the shelf has no other disk."""
        with self._database.read() as session:
            query = select(Server).where(Server.shelved_image_id == image.id, col(Server.deleted_at).is_(None))
            server = session.exec(query).first()
        if server is not None:
            raise Conflict(
                f"image {image.name} is the disk of server {server.name}, which is shelved",
                field="image",
                value=image.name,
                remedy=f"unshelve or delete the server first: hostler server unshelve {server.id}",
            )

    def _remove(self, image_id: str) -> None:
        self._store.remove(image_id)
        self._database.run(partial(drop_image, image_id=image_id))
