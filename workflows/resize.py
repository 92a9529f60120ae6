"""Resize: give a server another flavor, on whichever host has room for it.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_move | control | row taken, quota use, the allocation kept as the former one | settle |
| schedule | control | allocation | release_allocation |
| set_aside_claim | source; once | former claim | bring_back_claim |
| claim_resources | target | claim | drop_claim |
| fetch_image | target, while the image is in the catalogue | cached image | none: the cache keeps it |
| set_task_state | control, before stop_guest and before spawn | - | - |
| stop_guest | source, of a guest that runs; once | a guest that is off | start_guest, unless a new one may run unseen |
| set_aside_guest | source; once | former guest | bring_back_guest |
| offer_disks | source; with receive_disks up to three times a host | disks served, with a key | withdraw_offer |
| receive_disks | target | disks | destroy_guest |
| bind_ports | target, where that is another host | bridge, DHCP entry, NAT | unbind_ports |
| export_volume | volume hosts; once | exports, which are there | none |
| spawn | target | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the target, of a guest that is to run | - | - |
| resume_guest, or stop_guest | target | - | destroy_guest, of spawn |
| withdraw_offer | source; owed when it is silent | - | - : from here on it only goes forward |
| (workflow `later`) | control, if it is to confirm itself | a timer | none: it asks, and is refused |
| finish_move | control | VERIFY_RESIZE | - |

Then confirm-resize or revert-resize ends it, or the time that was set for the former. A target that fails is left as in
a boot: see workflows/placing.py; what is set aside on the source stays so meanwhile.
"""

from temporalio import workflow

from activities.interfaces.moves import BeginMove
from hostler.contract.errors import HostlerError, NoValidHost
from hostler.contract.servers import MigrationKind, OperationName, ResizeRequest, Server
from hostler.contract.states import TaskState
from workflows.moving import MoveOperation


@workflow.defn(name=OperationName.RESIZE.value)
class Resize(MoveOperation):
    """See the table above."""

    operation = OperationName.RESIZE
    call: ResizeRequest

    @workflow.init
    def __init__(self, request: ResizeRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: ResizeRequest) -> Server:
        """Resize the server."""
        return await self.conduct()

    def begin_move(self) -> BeginMove:
        return BeginMove(
            **dict(self.begin(self.allowed(), TaskState.RESIZE_PREP)),
            kind=MigrationKind.RESIZE,
            flavor=self.call.flavor,
            max_attempts=self.call.max_attempts,
            confirm_after=self.call.confirm_after,
        )

    def tell_all(self, error: HostlerError) -> None:
        """Let the error say as well that the host which has the server was not asked for room."""
        super().tell_all(error)
        if isinstance(error, NoValidHost) and self.source.id in self.plan.excluded:
            error.detail.remedy = (
                f"{error.remedy}; or let resizes stay on their host, which was left out: operations.resize_on_same_host"
            )
