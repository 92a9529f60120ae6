"""Sends a guest that runs to another host, and says where it is afterwards; see workflows/handing_over.py.

`force_complete` is an operator's word to let the guest stand still for the rest.
"""

import asyncio
from abc import abstractmethod
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from activities.interfaces.live_migrations import LiveMigrationPlan
from activities.interfaces.migrating import MigrateGuest, Migrating, TakeOver
from activities.interfaces.servers import HostRef
from hostler.contract.errors import OperationFailed
from hostler.contract.guests import Incoming, MigrationReport
from hostler.contract.names import host_queue
from hostler.contract.servers import ForceComplete, LiveMigrateRequest, StepStatus
from hostler.contract.states import PowerState
from workflows.concurrency import to_the_end
from workflows.failures import Verdict, judge
from workflows.handing_over import TAKE_OVER, Place, find
from workflows.placing import PlacedOperation
from workflows.refusals import not_on_its_way
from workflows.removing import DESTROY
from workflows.source import blaming
from workflows.steps import QUICK_STEP, StepDefinition

# Of this it may wait for weeks until others have left: `live_migration.completion_timeout` is of the way alone.
MIGRATE = StepDefinition[MigrateGuest, MigrationReport](
    Migrating.migrate_guest, timeout=timedelta(days=30), heartbeat=timedelta(seconds=30)
)


PREPARED_ANEW = "live-migrate-prepared-anew"


class SendingOperation(PlacedOperation[LiveMigrateRequest]):
    """It has its `plan` and `source` once it has the server.

    `migrating`: it is not known where the guest is; `ended`: it is off.
    """

    plan: LiveMigrationPlan
    source: HostRef
    migrating = ended = False

    @abstractmethod
    async def prepare(self, host: HostRef) -> Incoming:
        """Have the host ready to take it in."""

    async def hand_over(self, host: HostRef, incoming: Incoming) -> PowerState:
        """Send the guest to the host; it runs there when this returns."""
        call = MigrateGuest(**dict(self.ref), incoming=incoming, limits=self.plan.migration)
        while True:
            self.migrating = True
            try:
                report = await self.step(MIGRATE, call, on=self.source)
            except (ActivityError, asyncio.CancelledError) as failure:
                place, power_state = await to_the_end(find(self, self.ref, source=self.source, target=host))
                self.migrating, self.ended = False, place is Place.OFF
                if place is Place.THERE:
                    return power_state
                await self._stays(failure, host)
                if workflow.patched(PREPARED_ANEW):
                    call = call.model_copy(update={"incoming": await self._prepare_anew(host)})
            else:
                self.migrating = False
                record = self.last_record(MIGRATE.name)
                record.note = "; ".join(filter(None, (str(report), record.note)))
                look = self.ask(TAKE_OVER, TakeOver(**dict(self.ref)), on=host)  # it runs; so its host knows, too
                found = await to_the_end(look)
                return PowerState.RUNNING if isinstance(found, Verdict) else found

    async def _prepare_anew(self, host: HostRef) -> Incoming:
        """What has come there before is in the way of the next try: all of it may have, and never run."""
        self.heard(host)  # whoever decides to try again may have repaired it
        await self.step(DESTROY, self.ref, on=host)
        return await self.prepare(host)

    async def _stays(self, failure: BaseException, host: HostRef) -> None:
        """The guest is still on the source: returns when somebody has decided to try again, else raises why."""
        if isinstance(failure, asyncio.CancelledError):
            raise failure
        if self.ended:
            raise OperationFailed(
                f"the guest went off on its way to host {host.name}: it ended by itself, or host "
                f"{self.source.name} was switched off",
                remedy=f"its disks are on {self.source.name}: hostler server start {self.call.server_id}",
            ) from failure
        if not judge(failure, host=self.source.name).answered:
            with blaming(self.source):
                raise failure
        await self.stuck(self.last_record(MIGRATE.name), failure, host)

    @workflow.update(name="force_complete")
    async def force_complete(self, word: ForceComplete) -> None:
        """Let the guest stand still until the rest is across."""
        record = self.last_record(MIGRATE.name) if self.migrating else None
        if record is None or record.status is not StepStatus.RUNNING:
            raise not_on_its_way(self.call.server_id).to_application_error()
        await workflow.execute_activity_method(
            Migrating.force_complete,
            self.ref,
            task_queue=host_queue(self.source.id),
            schedule_to_start_timeout=self.limits.host_answer,
            start_to_close_timeout=QUICK_STEP,
            retry_policy=RetryPolicy(maximum_attempts=2),
            summary=f"force_complete by {word.by or 'somebody'}",
        )
        said = f"forced to its end by {word.by or 'somebody'}"
        record.note = f"{record.note}; {said}" if record.note else said  # it may have ended meanwhile
