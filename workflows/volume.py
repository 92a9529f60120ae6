"""Volumes by themselves: make one, delete one.

| create-volume | where | leaves behind | undo |
|---|---|---|---|
| accept_volume | control | the row, quota use | forget_volume |
| fetch_image, create_volume_data | the volume's host | cached image, file | none; deleted |
| finish_volume | control | - | - : it is the point of no return |

| delete-volume | where | undo |
|---|---|---|
| begin_delete_volume | control | - : from here on it only goes forward |
| delete_volume_data | the volume's host; owed when it is silent | - |
| forget_volume | control | - |
"""

from temporalio import workflow

from activities.interfaces.block_devices import AcceptVolume, BlockDevices, VolumeRef, VolumeWork
from hostler.contract.calls import CREATE_VOLUME, DELETE_VOLUME, Nothing, Ref
from hostler.contract.resources import Volume, VolumeCreate
from workflows.block_devices import DISCARD, create
from workflows.catalogue import CatalogueRunner
from workflows.concurrency import to_the_end
from workflows.steps import Saga, StepDefinition

ACCEPT = StepDefinition[AcceptVolume, VolumeWork](BlockDevices.accept_volume, undo=BlockDevices.forget_volume)
FINISH = StepDefinition[VolumeRef, Volume](BlockDevices.finish_volume)
BEGIN_DELETE = StepDefinition[VolumeRef, VolumeWork](BlockDevices.begin_delete_volume)
FORGET = StepDefinition[VolumeRef, None](BlockDevices.forget_volume)


@workflow.defn(name=CREATE_VOLUME)
class CreateVolume(CatalogueRunner):
    """See the first table above."""

    @workflow.run
    async def run(self, request: VolumeCreate) -> Volume:
        """Make the volume."""
        ref = VolumeRef(volume_id=request.id)
        self.title = f"create volume {request.name or request.id}, {request.size_gib} GiB"

        async def carry_out(saga: Saga) -> Volume:
            work = await self.step(ACCEPT, AcceptVolume(request=request), saga=saga, undo=ref)
            self.limits = work.limits
            await create(self, work, saga)
            return await to_the_end(self.must(FINISH, ref))

        return await self.all_or_nothing(carry_out)


@workflow.defn(name=DELETE_VOLUME)
class DeleteVolume(CatalogueRunner):
    """See the second table above."""

    @workflow.run
    async def run(self, request: Ref) -> Nothing:
        """Delete the volume."""
        ref = VolumeRef(volume_id=request.ref)
        self.title = f"delete volume {request.ref}"

        async def carry_out(saga: Saga) -> Nothing:
            work = await to_the_end(self.must(BEGIN_DELETE, ref, refusable=True))
            self.limits = work.limits
            return await to_the_end(self._remove(work, ref))

        return await self.all_or_nothing(carry_out)

    async def _remove(self, work: VolumeWork, ref: VolumeRef) -> Nothing:
        await self.ensure(DISCARD, ref, on=work.host)
        await self.must(FORGET, ref)
        return Nothing()
