"""Migrate: move a server, powered off meanwhile, to another host.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_move | control | row taken, the allocation kept as the former one | settle |
| schedule | control | allocation | release_allocation |
| set_aside_claim | source | former claim | bring_back_claim |
| claim_resources | target | claim | drop_claim |
| fetch_image | target | cached image | none: the cache keeps it |
| stop_guest | source | a guest that is off | start_guest |
| set_aside_guest | source | former guest | bring_back_guest |
| offer_disks | source | disks served, with a key | withdraw_offer |
| receive_disks | target | disks | destroy_guest |
| bind_ports | target | bridge, DHCP entry, NAT | unbind_ports |
| spawn | target | files, domain (paused), taps | destroy_guest |
| wait_vif_plugged | signal from the target | - | - |
| resume_guest, or stop_guest | target | - | destroy_guest, of spawn |
| withdraw_offer | source; owed when it is silent | - | - : from here on it only goes forward |
| finish_move | control | VERIFY_RESIZE | - |

Then confirm-resize or revert-resize ends it, or the time that was set for the former. A target that fails is left as in
a boot: see workflows/placing.py; what is set aside on the source stays so meanwhile. What it shares with a resize is in
workflows/moving.py.
"""

from temporalio import workflow

from activities.interfaces.moves import BeginMove
from hostler.contract.servers import MigrateRequest, MigrationKind, OperationName, Server
from hostler.contract.states import TaskState
from workflows.moving import MoveOperation


@workflow.defn(name=OperationName.MIGRATE.value)
class Migrate(MoveOperation):
    """See the table above."""

    operation = OperationName.MIGRATE
    call: MigrateRequest

    @workflow.init
    def __init__(self, request: MigrateRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: MigrateRequest) -> Server:
        """Migrate the server."""
        return await self.conduct()

    def begin_move(self) -> BeginMove:
        return BeginMove(
            **dict(self.begin(self.allowed(), TaskState.RESIZE_PREP)),
            kind=MigrationKind.MIGRATION,
            host=self.call.host,
            max_attempts=self.call.max_attempts,
            confirm_after=self.call.confirm_after,
        )
