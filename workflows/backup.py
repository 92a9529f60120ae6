"""Backup: a snapshot of a kind of which the server keeps the latest few.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_snapshot | control | row taken, the image's row, saving | settle, forget_image |
| snapshot_guest | host | a file that the store can take in | discard_snapshot |
| import_snapshot | control | the image in the store | forget_image, of begin_snapshot |
| discard_snapshot | host; owed when it is silent | - | - : from here on it only goes forward |
| publish_image | control | the image is active | - |
| rotate_backups | control: those that are too many are removed, the oldest first | - | - |
| settle | control | - | - |

What it shares with a snapshot and a shelve is in workflows/imaging.py.
"""

from temporalio import workflow

from activities.interfaces.servers import Target
from activities.interfaces.snapshots import BeginSnapshot, RotateBackups, Snapshots
from hostler.contract.guests import ImageRef
from hostler.contract.resources import ImageType
from hostler.contract.servers import BackupRequest, OperationName, Server
from hostler.contract.states import TaskState
from workflows.imaging import IMAGING
from workflows.snapshot import SnapshotOperation
from workflows.steps import StepDefinition

ROTATE_BACKUPS = StepDefinition[RotateBackups, None](Snapshots.rotate_backups)


@workflow.defn(name=OperationName.BACKUP.value)
class Backup(SnapshotOperation[BackupRequest]):
    """See the table above."""

    operation = OperationName.BACKUP

    @workflow.init
    def __init__(self, request: BackupRequest) -> None:
        super().__init__(request, (*IMAGING, ROTATE_BACKUPS.name, "settle"))

    @workflow.run
    async def run(self, request: BackupRequest) -> Server:
        """Make the image, and remove old ones."""
        return await self.conduct()

    def begin_snapshot(self) -> BeginSnapshot:
        update = {
            "task_state": TaskState.IMAGE_BACKUP,
            "image_type": ImageType.BACKUP,
            "backup_type": self.call.backup_type,
        }
        return super().begin_snapshot().model_copy(update=update)

    async def finish(self, target: Target, image: ImageRef) -> Server:
        await self.publish(image, target.hosts[0])
        call = RotateBackups(server_id=target.server_id, backup_type=self.call.backup_type, rotation=self.call.rotation)
        await self.must(ROTATE_BACKUPS, call)
        return await self.settle(None)
