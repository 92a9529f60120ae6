"""Moves: the server's row and its migration, from the first change to the last."""

from functools import partial

from sqlmodel import Session, select
from temporalio import activity

from activities.control.disks import check_fits, check_ram
from activities.control.events import write_events
from activities.control.find import find_flavor
from activities.control.guest_plans import disks_of, plan_guest, resized, write_disks
from activities.control.limits import limits_of
from activities.control.migrations import (
    check_destination,
    count,
    give_up_formers,
    new_migration,
    open_migration,
    restore_devices,
    wear,
)
from activities.control.quotas import check_quota
from activities.control.taking import held, let_go, take
from activities.control.targets import target_of
from activities.control.views import flavor_view, server_view
from activities.interfaces import moves as interface
from activities.interfaces.moves import BeginMove, EndMove, FinishMove, MovePlan
from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import DiskKind
from hostler.contract.resources import Flavor
from hostler.contract.servers import MigrationKind, MigrationStatus, Server
from hostler.contract.states import VmState
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import BlockDevice, Database, Host, Image, Migration, lock_quota, now
from models import Server as Row
from scheduler.reservation import lock_hosts, make_former, release_former, release_others, restore_former


class Moves(interface.Moves):
    """Owner of the migration rows."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._keys = load_keys(settings)

    @activity.defn(name="begin_move")
    def begin_move(self, call: BeginMove) -> MovePlan:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginMove) -> MovePlan:
        lock_quota(session, call.project)  # before the server, as a boot does
        row = take(session, call)
        old = Flavor.model_validate(row.flavor)
        new = flavor_view(find_flavor(session, call.flavor)) if call.flavor is not None else old
        target = target_of(session, row, limits_of(self._settings, call.operation, call.max_attempts))
        source = session.get_one(Host, row.host_id)
        migration = session.get(Migration, call.run_id)
        if migration is None:
            _check(session, row, call, old, new, source)
            session.add(new_migration(row, call.run_id, call.kind, new))
            make_former(session, row.id)
            count(row, old, new)
        former = migration.former_vm_state if migration else row.vm_state
        disks = resized(disks_of(session, row), old, new)
        plan = plan_guest(session, self._keys, row, flavor=new, disks=disks)
        plan.guest.received = True
        plan.architecture = plan.architecture or source.architecture
        plan.hypervisor_type = source.hypervisor_type
        stays = call.kind is MigrationKind.RESIZE and self._settings.operations.resize_on_same_host
        settings_say = self._settings.operations.confirm_after
        return MovePlan(
            **target.model_copy(update={"former": former}).model_dump(),
            plan=plan,
            flavor=new.name,
            excluded=[] if stays else [source.id],
            host=call.host,
            confirm_after=settings_say if call.confirm_after is None else call.confirm_after,
        )

    @activity.defn(name="finish_move")
    def finish_move(self, call: FinishMove) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            migration = session.get(Migration, call.run_id)
            if ours and migration is not None:
                devices = session.exec(select(BlockDevice).where(BlockDevice.server_id == row.id))
                migration.old_devices = [device.model_dump(mode="json") for device in devices]
                migration.status, migration.target_id = MigrationStatus.FINISHED, call.host_id
                migration.confirms_at = now() + call.confirm_after if call.confirm_after else None
                write_disks(session, row.id, call.disks)
                wear(row, Flavor.model_validate(migration.new_flavor))
                row.host_id, row.vm_state, row.power_state, row.fault = (
                    call.host_id,
                    VmState.RESIZED,
                    call.power_state,
                    None,
                )
                release_others(session, row.id, call.host_id)
                let_go(row)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="confirm_move")
    def confirm_move(self, call: EndMove) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            migration = open_migration(session, row.id)
            if ours and migration is not None:
                migration.status, migration.confirms_at = MigrationStatus.CONFIRMED, None
                release_former(session, row.id)
                _end(session, row, call)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="revert_move")
    def revert_move(self, call: EndMove) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            migration = open_migration(session, row.id)
            if ours and migration is not None:
                if migration.status is MigrationStatus.FINISHED:
                    restore_devices(session, migration)
                migration.status, migration.confirms_at = MigrationStatus.REVERTED, None
                lock_hosts(session, row.id, migration.source_id)
                restore_former(session, row.id, migration.source_id)
                row.host_id = migration.source_id
                wear(row, Flavor.model_validate(migration.old_flavor))
                give_up_formers(session, row, call.run_id)  # of the move that an evacuation had confirmed
                _end(session, row, call)
            return server_view(session, row)

        return self._database.run(change)


def _check(session: Session, row: Row, call: BeginMove, old: Flavor, new: Flavor, source: Host) -> None:
    """What can be refused before anything is done.

    Raises:
        InvalidRequest, NotFound, Conflict, QuotaExceeded
    """
    if call.kind is MigrationKind.RESIZE and new.id == old.id:
        raise InvalidRequest(
            f"server {row.name} is of flavor {new.name} already",
            field="flavor",
            value=new.name,
            remedy="choose another: hostler flavor list",
        )
    check_destination(session, row, call.host, source)
    image = session.get(Image, row.image_id) if row.image_id else None
    root = next((disk for disk in disks_of(session, row) if disk.kind is DiskKind.ROOT), None)
    if image is not None and root is not None and root.volume_id is None and new.disk_gib:
        check_fits(image, new.disk_gib, "flavor")
    if image is not None:
        check_ram(image, new)
    check_quota(session, call.project, vcpus=new.vcpus - old.vcpus, ram_mib=new.ram_mib - old.ram_mib)


def _end(session: Session, row: Row, call: EndMove) -> None:
    row.vm_state, row.power_state, row.fault = call.vm_state, call.power_state, None
    count(row, Flavor.model_validate(row.flavor))
    release_others(session, row.id, row.host_id)
    let_go(row)
    write_events(session, call.events)
