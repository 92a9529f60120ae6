"""Import an image into the store.

| step | where | leaves behind | undo |
|---|---|---|---|
| accept_image | control | the row, saving | forget_image |
| import_image | control | the file; the row is active | forget_image, of accept_image |
"""

from datetime import timedelta

from temporalio import workflow

from activities.interfaces.images import ImageId, Images
from hostler.contract.calls import CREATE_IMAGE
from hostler.contract.resources import Image, ImageCreate
from workflows.catalogue import CatalogueRunner
from workflows.steps import Saga, StepDefinition

ACCEPT = StepDefinition[ImageCreate, None](Images.accept_image, undo=Images.forget_image)
IMPORT = StepDefinition[ImageCreate, Image](
    Images.import_image, timeout=timedelta(hours=2), heartbeat=timedelta(seconds=60)
)


@workflow.defn(name=CREATE_IMAGE)
class CreateImage(CatalogueRunner):
    """See the table above."""

    @workflow.run
    async def run(self, request: ImageCreate) -> Image:
        """Import the image."""
        self.title = f"import image {request.name}"

        async def carry_out(saga: Saga) -> Image:
            await self.step(ACCEPT, request, saga=saga, undo=ImageId(image_id=request.id))
            return await self.step(IMPORT, request, final=True)

        return await self.all_or_nothing(carry_out)
