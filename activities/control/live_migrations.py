"""Live migrations: the server's row, allocation and migration, from the first change to the last."""

from datetime import timedelta
from functools import partial

from sqlmodel import Session
from temporalio import activity

from activities.control.arriving import arrive
from activities.control.guest_plans import plan_guest
from activities.control.limits import limits_of
from activities.control.migrations import check_destination, new_migration
from activities.control.taking import take
from activities.control.targets import target_of
from activities.interfaces import live_migrations as interface
from activities.interfaces.live_migrations import BeginLiveMigration, FinishLiveMigration, LiveMigrationPlan
from activities.interfaces.plans import GuestPlan
from hostler.contract.guests import MigrationLimits
from hostler.contract.servers import MigrationKind, Server, TimeoutAction
from hostler.contract.states import PowerState, VmState
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import Database, Host, Migration
from scheduler.reservation import make_former

MIB_PER_GIB = 1024
LEAST_GIB = 2
"""A small guest gets the time of one of this size, as in Nova's `_live_migration_completion_timeout`."""


class LiveMigrations(interface.LiveMigrations):
    """Owner of the rows of live migrations."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._keys = load_keys(settings)

    @activity.defn(name="begin_live_migration")
    def begin_live_migration(self, call: BeginLiveMigration) -> LiveMigrationPlan:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginLiveMigration) -> LiveMigrationPlan:
        row = take(session, call)
        target = target_of(session, row, limits_of(self._settings, call.operation, call.max_attempts))
        source = session.get_one(Host, row.host_id)
        if session.get(Migration, call.run_id) is None:
            check_destination(session, row, call.host, source)
            session.add(new_migration(row, call.run_id, MigrationKind.LIVE_MIGRATION))
            make_former(session, row.id)
        plan = plan_guest(session, self._keys, row)
        plan.architecture = plan.architecture or source.architecture
        plan.hypervisor_type = source.hypervisor_type
        return LiveMigrationPlan(
            **target.model_dump(),
            plan=plan,
            excluded=[source.id],
            host=call.host,
            migration=self._limits(call, plan),
        )

    def _limits(self, call: BeginLiveMigration, plan: GuestPlan) -> MigrationLimits:
        say = self._settings.live_migration
        action = call.timeout_action or TimeoutAction(say.timeout_action)
        timeout = call.completion_timeout
        return MigrationLimits(
            downtime=say.downtime,
            bandwidth_mib=say.bandwidth_mib,
            completion_timeout=_for_size(say.completion_timeout, plan) if timeout is None else timeout,
            force_complete=action is TimeoutAction.FORCE_COMPLETE,
            auto_converge=say.auto_converge,
            post_copy=say.post_copy,
        )

    @activity.defn(name="finish_live_migration")
    def finish_live_migration(self, call: FinishLiveMigration) -> Server:
        vm_state = VmState.STOPPED if call.power_state is PowerState.SHUTDOWN else VmState.ACTIVE
        return self._database.run(lambda session: arrive(session, call, vm_state))


def _for_size(per_gib: timedelta, plan: GuestPlan) -> timedelta:
    """How long all of a guest of this size may take."""
    return per_gib * max(LEAST_GIB, plan.disk_gib + -(-plan.guest.ram_mib // MIB_PER_GIB))
