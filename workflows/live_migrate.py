"""Live migrate: move a server to another host while it runs.

| step | where | leaves behind | undo |
|---|---|---|---|
| begin_live_migration | control | row taken, the allocation kept as the former one | settle |
| describe_guest | source | - | - |
| schedule | control | allocation | release_allocation |
| claim_resources | target | claim | drop_claim |
| bind_ports | target; beside the next three | bridge, DHCP entry, NAT | unbind_ports |
| fetch_image | target, while the image is in the catalogue | cached image | none: the cache keeps it |
| export_volume | volume hosts | exports, which are there | none |
| prepare_incoming | target | empty disks, config drive | destroy_guest |
| migrate_guest | source | a guest that runs on the target, and is off on the source | end_migration, look_for_arrival, then keep_guest or take_over: see workflows/handing_over.py |
| take_over | target; once the guest is there | - | - : from here on it only goes forward |
| destroy_guest, drop_claim; beside them unbind_ports | source; owed when it is silent | - | - |
| finish_live_migration | control: allocation and host, by one change | ACTIVE | - |

For migrate_guest see workflows/sending.py: whatever becomes of it, workflows/handing_over.py finds out where the guest
is. A target that fails is left as in a boot: see workflows/placing.py.
"""  # noqa: E501 - a table

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow

from activities.interfaces.live_migrations import (
    BeginLiveMigration,
    FinishLiveMigration,
    LiveMigrationPlan,
    LiveMigrations,
)
from activities.interfaces.migrating import Migrating, PrepareIncoming
from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import HostlerError
from hostler.contract.guests import GuestDescription, Incoming
from hostler.contract.servers import Choice, LiveMigrateRequest, OperationName, Server
from hostler.contract.states import PowerState, TaskState, VmState
from workflows.block_devices import FETCH_IMAGE
from workflows.building import BIND_PORTS, CLAIM, SCHEDULE, bind, claim_of, connected_guest, schedule_of
from workflows.concurrency import to_the_end, together
from workflows.failures import Verdict
from workflows.handing_over import FINISH_LIVE_MIGRATION, TAKE_OVER
from workflows.removing import DESTROY, DROP_CLAIM, UNBIND_PORTS, remove_from, remove_handed_over
from workflows.sending import MIGRATE, SendingOperation
from workflows.source import blaming
from workflows.steps import StepDefinition

BEGIN = StepDefinition[BeginLiveMigration, LiveMigrationPlan](LiveMigrations.begin_live_migration)
DESCRIBE = StepDefinition[ServerRef, GuestDescription](Migrating.describe_guest)
PREPARE = StepDefinition[PrepareIncoming, Incoming](
    Migrating.prepare_incoming, undo=DESTROY.activity, timeout=timedelta(minutes=5), heartbeat=timedelta(seconds=30)
)
PLANNED = (
    *(BEGIN, DESCRIBE, SCHEDULE, CLAIM, FETCH_IMAGE, BIND_PORTS, PREPARE, MIGRATE, TAKE_OVER),
    *(DESTROY, UNBIND_PORTS, DROP_CLAIM, FINISH_LIVE_MIGRATION),
)

AT_ONCE = "live-migrate-at-once"


@workflow.defn(name=OperationName.LIVE_MIGRATE.value)
class LiveMigrate(SendingOperation):
    """See the table above."""

    operation, afterwards, may_be_refused_late = OperationName.LIVE_MIGRATE, VmState.ACTIVE, True

    @workflow.init
    def __init__(self, request: LiveMigrateRequest) -> None:
        super().__init__(request, [step.name for step in PLANNED])
        self.at_source = False

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
        await self.step(CLAIM, claim_of(self.plan.plan), on=host, saga=self.attempt, undo=self.ref)
        if workflow.patched(AT_ONCE):
            _, incoming = await together(self.bind(host), self.receive(host))
        else:
            await self.fetch(host)
            await self.bind(host)
            incoming = await self.prepare(host)
        return await self.hand_over(host, incoming)

    async def bind(self, host: HostRef) -> None:
        """Its ports there."""
        await bind(self, self.plan.plan.guest.ports, host, self.attempt)

    async def receive(self, host: HostRef) -> Incoming:
        """All else that it will find there."""
        await self.fetch(host)
        return await self.prepare(host)

    async def fetch(self, host: HostRef) -> None:
        """The image that its root disk stands on, if that is still in the catalogue."""
        if self.plan.plan.image is not None:
            await self.step(FETCH_IMAGE, self.plan.plan.image, on=host)

    async def prepare(self, host: HostRef) -> Incoming:
        """Its disks, without what is on them."""
        guest = await connected_guest(self, self.plan.plan)
        call = PrepareIncoming(
            **dict(self.ref),
            guest=guest,
            description=self.description,
            post_copy=self.plan.migration.post_copy,
        )
        return await self.step(PREPARE, call, on=host, saga=self.attempt, undo=self.ref)

    async def finish(self, host: HostRef, power_state: PowerState) -> Server:
        """The guest is there: the source forgets it."""
        remove = remove_handed_over if workflow.patched(AT_ONCE) else remove_from
        await remove(self, self.source, self.ref, self.plan.port_ids)
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
