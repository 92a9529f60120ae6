"""Snapshot: an image of a server's root disk, of one moment; the server goes on meanwhile.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_snapshot | control | row taken, the image's row, saving | settle, forget_image |
| snapshot_guest | host | a file that the store can take in | discard_snapshot |
| import_snapshot | control | the image in the store | forget_image, of begin_snapshot |
| discard_snapshot | host; owed when it is silent | - | - : from here on it only goes forward |
| publish_image | control | the image is active | - |
| settle | control | - | - |

What it shares with a backup and a shelve is in workflows/imaging.py.
"""

from collections.abc import Sequence
from typing import TypeVar

from temporalio import workflow

from activities.interfaces.servers import Target
from activities.interfaces.snapshots import BeginSnapshot
from hostler.contract.errors import HostlerError
from hostler.contract.guests import ImageRef
from hostler.contract.resources import ImageType
from hostler.contract.servers import OperationName, Server, SnapshotRequest
from hostler.contract.states import TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.imaging import IMAGING, ImagingOperation

Asked = TypeVar("Asked", bound=SnapshotRequest)


class SnapshotOperation(ImagingOperation[Asked]):
    """What a snapshot and a backup share."""

    def __init__(self, request: Asked, planned: Sequence[str]) -> None:
        super().__init__(request, planned)
        self.image_id = request.image_id

    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible."""
        return (VmState.ACTIVE, VmState.STOPPED)

    def begin_snapshot(self) -> BeginSnapshot:
        """What is asked of the server's row."""
        return BeginSnapshot(
            **dict(self.begin(self.allowed(), TaskState.IMAGE_SNAPSHOT)),
            image_id=self.image_id,
            name=self.call.name,
            image_type=ImageType.SNAPSHOT,
        )

    async def carry_out(self) -> Server:
        self.target = await self.begin_image(self.begin_snapshot())
        self.accept(self.target.limits, f"{self.operation} {self.target.name} as {self.call.name}")
        host = self.target.hosts[0]
        self.state.host = host.name
        image = await self.make_image(host, quiesce=self.call.quiesce)
        return await to_the_end(self.finish(self.target, image))

    async def finish(self, target: Target, image: ImageRef) -> Server:
        """Publish it, and give the server back as it is."""
        await self.publish(image, target.hosts[0])
        return await self.settle(None)

    async def give_up(self, error: HostlerError) -> None:
        await self.unwind(self.saga)
        await self.settle(None)


@workflow.defn(name=OperationName.SNAPSHOT.value)
class Snapshot(SnapshotOperation[SnapshotRequest]):
    """See the table above."""

    operation = OperationName.SNAPSHOT

    @workflow.init
    def __init__(self, request: SnapshotRequest) -> None:
        super().__init__(request, (*IMAGING, "settle"))

    @workflow.run
    async def run(self, request: SnapshotRequest) -> Server:
        """Make the image."""
        return await self.conduct()
