"""Migrate: move a server, powered off meanwhile, to another host.

Its steps, undos and point of no return are those of a resize, whose table is in workflows/resize.py; source and target
are never the same.
"""

from temporalio import workflow

from activities.interfaces.moves import BeginMove
from hostler.contract.servers import MigrateRequest, MigrationKind, OperationName, Server
from hostler.contract.states import TaskState
from workflows.moving import MoveOperation


@workflow.defn(name=OperationName.MIGRATE.value)
class Migrate(MoveOperation):
    """See the table there."""

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
