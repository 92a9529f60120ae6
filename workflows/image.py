"""Import an image into the store.

| step | where | leaves behind | undo |
|---|---|---|---|
| accept_image | control | the row, saving | forget_image |
| import_image | control | the file | forget_image, of accept_image |
| publish_image | control | the row is active | - : it is the point of no return |
"""

from datetime import timedelta

from temporalio import workflow

from activities.interfaces.images import ForgetImage, Images
from hostler.contract.calls import CREATE_IMAGE
from hostler.contract.guests import ImageRef
from hostler.contract.resources import Image, ImageCreate
from workflows.catalogue import CatalogueRunner
from workflows.concurrency import to_the_end
from workflows.steps import Saga, StepDefinition

ACCEPT = StepDefinition[ImageCreate, None](Images.accept_image, undo=Images.forget_image)
IMPORT = StepDefinition[ImageCreate, ImageRef](
    Images.import_image, timeout=timedelta(hours=2), heartbeat=timedelta(seconds=60)
)
PUBLISH = StepDefinition[ImageRef, Image](Images.publish_image)


@workflow.defn(name=CREATE_IMAGE)
class CreateImage(CatalogueRunner):
    """See the table above."""

    @workflow.run
    async def run(self, request: ImageCreate) -> Image:
        """Import the image."""
        self.title = f"import image {request.name}"

        async def carry_out(saga: Saga) -> Image:
            undo = ForgetImage(image_id=request.id, since=workflow.info().start_time)
            await self.step(ACCEPT, request, saga=saga, undo=undo)
            imported = await self.step(IMPORT, request)
            return await to_the_end(self.must(PUBLISH, imported))

        return await self.all_or_nothing(carry_out)
