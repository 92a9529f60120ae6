"""What snapshot, backup and shelve share: an image is made of a server's root disk.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_snapshot | control | row taken, the image's row, saving | settle, forget_image |
| snapshot_guest | host | a file that the store can take in | discard_snapshot |
| import_snapshot | control | the image in the store | forget_image, of begin_snapshot |
| discard_snapshot | host; owed when it is silent | - | - : from here on it only goes forward |
| publish_image | control | the image is active | - |
"""

from datetime import timedelta

from activities.interfaces.images import ForgetImage, ImageId, Images
from activities.interfaces.servers import HostRef, Target
from activities.interfaces.snapshots import BeginSnapshot, HostSnapshots, SnapshotFile, SnapshotGuest, Snapshots
from hostler.contract.errors import HostlerError
from hostler.contract.guests import ImageRef
from hostler.contract.resources import Image
from workflows.concurrency import to_the_end
from workflows.front_door import Request
from workflows.operation import Operation
from workflows.steps import Saga, StepDefinition

BEGIN_SNAPSHOT = StepDefinition[BeginSnapshot, Target](Snapshots.begin_snapshot, undo=Images.forget_image)
SNAPSHOT_GUEST = StepDefinition[SnapshotGuest, SnapshotFile](
    HostSnapshots.snapshot_guest,
    undo=HostSnapshots.discard_snapshot,
    timeout=timedelta(hours=12),
    heartbeat=timedelta(seconds=60),
)
IMPORT_SNAPSHOT = StepDefinition[SnapshotFile, ImageRef](
    Snapshots.import_snapshot, timeout=timedelta(hours=12), heartbeat=timedelta(seconds=60)
)
DISCARD_SNAPSHOT = StepDefinition[ImageId, None](HostSnapshots.discard_snapshot)
PUBLISH_IMAGE = StepDefinition[ImageRef, Image](Images.publish_image)

IMAGING = (BEGIN_SNAPSHOT.name, SNAPSHOT_GUEST.name, IMPORT_SNAPSHOT.name, DISCARD_SNAPSHOT.name, PUBLISH_IMAGE.name)


class ImagingOperation(Operation[Request]):
    """See the table above; `image_id` is the image's UUID."""

    saga: Saga
    image_id: str

    async def begin_image(self, call: BeginSnapshot) -> Target:
        """Take the server, and enter the image."""
        self.saga = Saga()
        undo = ForgetImage(image_id=self.image_id, made_of=self.call.server_id)
        return await to_the_end(self.step(BEGIN_SNAPSHOT, call, saga=self.saga, undo=undo, final=True))

    async def make_image(self, host: HostRef, *, quiesce: bool = False) -> ImageRef:
        """From the guest into the store, where nobody sees it yet."""
        call = SnapshotGuest(server_id=self.call.server_id, image_id=self.image_id, quiesce=quiesce)
        undo = ImageId(image_id=self.image_id)
        file = await self.step(SNAPSHOT_GUEST, call, on=host, saga=self.saga, undo=undo)
        return await self.step(IMPORT_SNAPSHOT, file)

    async def publish(self, image: ImageRef, host: HostRef) -> None:
        """From here on there is such an image: the point of no return."""
        await self.ensure(DISCARD_SNAPSHOT, ImageId(image_id=image.id), on=host)
        await self.must(PUBLISH_IMAGE, image)

    async def _disown(self, error: HostlerError) -> None:
        await self.unwind(self.saga)
        await super()._disown(error)
