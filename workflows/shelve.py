"""Shelve: stop a server and keep its root disk as an image; then it gives its host up, at once or after a time.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_snapshot | control | row taken, the image's row, saving | settle, forget_image |
| stop_guest, of a guest that runs | host | a guest that is off | start_guest |
| snapshot_guest | host | a file that the store can take in | discard_snapshot |
| import_snapshot | control | the image in the store | forget_image, of begin_snapshot |
| discard_snapshot | host; owed when it is silent | - | - : from here on it only goes forward |
| publish_image | control | the image is active | - |
| destroy_guest, unbind_ports, drop_claim | host, given up at once; owed when it is silent | - | - |
| withdraw_volume | each volume's host, likewise | - | - |
| (workflow `later`) | control, if it is to keep its host for a time | a timer | - |
| finish_shelve | control | SHELVED, or SHELVED_OFFLOADED | - |

Where the root disk is a volume, there is no image, and the point of no return is the first step that gives the host up.
What it shares with others is in workflows/imaging.py and workflows/shelving.py.
"""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow

from activities.interfaces.guests import StopGuest
from activities.interfaces.servers import ServerRef, Target
from activities.interfaces.shelves import FinishShelve, Shelves
from activities.interfaces.snapshots import BeginSnapshot
from hostler.contract.errors import HostlerError
from hostler.contract.guests import ImageRef
from hostler.contract.resources import ImageType
from hostler.contract.servers import OperationName, Server, ShelveRequest
from hostler.contract.states import TaskState, VmState
from workflows.concurrency import to_the_end
from workflows.imaging import IMAGING, ImagingOperation
from workflows.later import ask_later
from workflows.shelving import LEAVING, leave_host
from workflows.source import STOP
from workflows.steps import StepDefinition

FINISH_SHELVE = StepDefinition[FinishShelve, Server](Shelves.finish_shelve)
AT_ONCE = timedelta(0)


@workflow.defn(name=OperationName.SHELVE.value)
class Shelve(ImagingOperation[ShelveRequest]):
    """See the table above."""

    operation, afterwards = OperationName.SHELVE, VmState.SHELVED

    @workflow.init
    def __init__(self, request: ShelveRequest) -> None:
        super().__init__(request, (IMAGING[0], STOP.name, *IMAGING[1:], *LEAVING, FINISH_SHELVE.name))
        self.image_id = str(workflow.uuid4())

    @workflow.run
    async def run(self, request: ShelveRequest) -> Server:
        """Shelve the server."""
        return await self.conduct()

    def allowed(self) -> Sequence[VmState]:
        """The states from which it is possible."""
        return (VmState.ACTIVE, VmState.STOPPED)

    async def carry_out(self) -> Server:
        begin = BeginSnapshot(
            **dict(self.begin(self.allowed(), TaskState.SHELVING)),
            image_id=self.image_id,
            name="",
            image_type=ImageType.SHELVED,
        )
        target = self.target = await self.begin_image(begin)
        self.accept(target.limits, f"shelve {target.name}")
        host = target.hosts[0]
        self.state.host = host.name
        if target.former is VmState.ACTIVE:
            stop = StopGuest(server_id=target.server_id, timeout=self.limits.stop)
            undo = ServerRef(server_id=target.server_id)
            await self.step(STOP, stop, on=host, saga=self.saga, undo=undo)
        image = None if target.root_volume else await self.make_image(host)
        return await to_the_end(self.put_on_the_shelf(target, image))

    async def put_on_the_shelf(self, target: Target, image: ImageRef | None) -> Server:
        """Publish the image, and give the host up if it is time."""
        if image is not None:
            await self.publish(image, target.hosts[0])
        after = self.limits.offload_after if self.call.offload_after is None else self.call.offload_after
        at_once = image is None or after == AT_ONCE  # a volume needs no host that remembers it
        if at_once:
            await leave_host(self, target)
        elif after > AT_ONCE:
            await ask_later(
                OperationName.SHELVE_OFFLOAD,
                target.server_id,
                project=self.call.project,
                subject=self.image_id,
                after=after,
            )
        call = FinishShelve(
            server_id=target.server_id,
            run_id=self.run_id,
            image_id=image.id if image else None,
            offloaded=at_once,
            events=self.event_log(FINISH_SHELVE.name),
        )
        return await self.must(FINISH_SHELVE, call)

    async def give_up(self, error: HostlerError) -> None:
        await self.unwind(self.saga)
        await self.settle(self.target.former)
