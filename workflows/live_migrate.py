"""Live migrate: move a server to another host while it runs.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_live_migration | control | row taken, the allocation kept as the former one | settle |
| describe_guest | source | - | - |
| schedule | control | allocation | release_allocation |
| claim_resources | target | claim | drop_claim |
| fetch_image | target | cached image | none: the cache keeps it |
| bind_ports | target | bridge, DHCP entry, NAT | unbind_ports |
| prepare_incoming | target | empty disks, config drive | destroy_guest |
| migrate_guest | source | a guest that runs on the target, and is off on the source | - : from here on it only goes forward |
| take_over | target | - | - |
| destroy_guest, unbind_ports, drop_claim | source; owed when it is silent | - | - |
| finish_live_migration | control: allocation and host, by one change | ACTIVE | - |

Whatever becomes of migrate_guest, workflows/handing_over.py finds out where the guest is. A target that fails is left as
in a boot: see workflows/placing.py. `force_complete` is an operator's word to let the guest stand still for the rest.
"""  # noqa: E501 - a table

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from activities.interfaces.live_migrations import (
    BeginLiveMigration,
    FinishLiveMigration,
    LiveMigrationPlan,
    LiveMigrations,
)
from activities.interfaces.migrating import MigrateGuest, Migrating, PrepareIncoming
from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import HostlerError, OperationFailed
from hostler.contract.guests import GuestDescription, Incoming, MigrationReport
from hostler.contract.names import host_queue
from hostler.contract.servers import Choice, ForceComplete, LiveMigrateRequest, OperationName, Server, Step, StepStatus
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE
from workflows.building import BIND_PORTS, CLAIM, SCHEDULE, bind, claim_of, connected_guest, schedule_of
from workflows.concurrency import to_the_end
from workflows.failures import Verdict, judge
from workflows.handing_over import FINISH_LIVE_MIGRATION, TAKE_OVER, Place, find
from workflows.placing import PlacedOperation
from workflows.refusals import not_on_its_way
from workflows.removing import DESTROY, DROP_CLAIM, UNBIND_PORTS, remove_from
from workflows.source import blaming
from workflows.steps import QUICK_STEP, StepDefinition

BEGIN = StepDefinition[BeginLiveMigration, LiveMigrationPlan](LiveMigrations.begin_live_migration)
DESCRIBE = StepDefinition[ServerRef, GuestDescription](Migrating.describe_guest)
PREPARE = StepDefinition[PrepareIncoming, Incoming](
    Migrating.prepare_incoming, undo=DESTROY.activity, timeout=timedelta(minutes=5), heartbeat=timedelta(seconds=30)
)
MIGRATE = StepDefinition[MigrateGuest, MigrationReport](
    Migrating.migrate_guest, timeout=timedelta(days=7), heartbeat=timedelta(seconds=30)
)
PLANNED = (
    *(BEGIN, DESCRIBE, SCHEDULE, CLAIM, FETCH_IMAGE, BIND_PORTS, PREPARE, MIGRATE, TAKE_OVER),
    *(DESTROY, UNBIND_PORTS, DROP_CLAIM, FINISH_LIVE_MIGRATION),
)


@workflow.defn(name=OperationName.LIVE_MIGRATE.value)
class LiveMigrate(PlacedOperation[LiveMigrateRequest]):
    """See the table above."""

    operation, afterwards, may_be_refused_late = OperationName.LIVE_MIGRATE, VmState.ACTIVE, True

    @workflow.init
    def __init__(self, request: LiveMigrateRequest) -> None:
        super().__init__(request, [step.name for step in PLANNED])
        self.ref = ServerRef(server_id=request.server_id, run_id=self.run_id)
        self.at_source = self.migrating = self.ended = False

    @workflow.run
    async def run(self, request: LiveMigrateRequest) -> Server:
        """Live migrate the server."""
        return await self.conduct()

    async def carry_out(self) -> Server:
        begin = BeginLiveMigration(
            **dict(self.begin((VmState.ACTIVE,), TaskState.MIGRATING)),
            host=self.call.host,
            max_attempts=self.call.max_attempts,
            completion_timeout=self.call.completion_timeout,
            timeout_action=self.call.timeout_action,
        )
        self.plan = await self.unbroken(BEGIN, begin)
        self.source = self.plan.hosts[0]
        self.accept(self.plan.limits, f"live-migrate {self.plan.name} from {self.source.name}")
        self.at_source = True
        with blaming(self.source):
            self.description = await self.step(DESCRIBE, self.ref, on=self.source)
        self.at_source = False
        host, power_state = await self.on_some_host(self.build)
        return await to_the_end(self.finish(host, power_state))

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        """A hold must not begin before it is known where the guest is."""
        if self.migrating or self.ended:
            return ()
        return (Choice.RETRY, Choice.GIVE_UP) if self.at_source else super().choices(verdict, on)

    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        return schedule_of(
            self.plan.plan,
            self.run_id,
            zone=self.plan.plan.guest.availability_zone,
            host=host or self.plan.host,
            alternates=alternates,
            excluded=[*self.plan.excluded, *tried],
        )

    async def build(self, host: HostRef) -> PowerState:
        """Everything on one host, until the guest runs there."""
        plan = self.plan.plan
        await self.step(CLAIM, claim_of(plan), on=host, saga=self.attempt, undo=self.ref)
        if plan.image is not None:
            await self.step(FETCH_IMAGE, plan.image, on=host)
        await bind(self, plan.guest.ports, host, self.attempt)
        call = PrepareIncoming(**dict(self.ref), guest=await connected_guest(self, plan), description=self.description)
        incoming = await self.step(PREPARE, call, on=host, saga=self.attempt, undo=self.ref)
        return await self.hand_over(host, incoming)

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
                await self.stays(failure, host)
            else:
                self.migrating = False
                self.last(MIGRATE).note = str(report)
                look = self.ask(TAKE_OVER, self.ref, on=host)  # it runs; so its host knows, too
                found = await to_the_end(look)
                return PowerState.RUNNING if isinstance(found, Verdict) else found

    async def stays(self, failure: BaseException, host: HostRef) -> None:
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
        await self.stuck(self.last(MIGRATE), failure, host)

    def last(self, definition: StepDefinition[MigrateGuest, MigrationReport]) -> Step:
        """The record of the step, when it ran last."""
        return next(step for step in reversed(self.state.steps) if step.name == definition.name)

    @workflow.update(name="force_complete")
    async def force_complete(self, word: ForceComplete) -> None:
        """Let the guest stand still until the rest is across."""
        record = self.last(MIGRATE) if self.migrating else None
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

    async def finish(self, host: HostRef, power_state: PowerState) -> Server:
        """The guest is there: the source forgets it."""
        await remove_from(self, self.source, self.ref, self.plan.port_ids)
        call = FinishLiveMigration(
            **dict(self.ref),
            host_id=host.id,
            power_state=power_state,
            events=self.event_log(FINISH_LIVE_MIGRATION.name),
        )
        return await self.must(FINISH_LIVE_MIGRATION, call)

    async def give_up(self, error: HostlerError) -> None:
        """It stays where it was."""
        await self.unwind(self.attempt)
        self.tell_all(error)
        if self.ended:
            await self.settle(VmState.STOPPED, power_state=PowerState.SHUTDOWN)
        else:
            await self.settle(self.plan.former)
