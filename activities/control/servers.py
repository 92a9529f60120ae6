"""The server's row: accepted, taken, given back."""

from contextlib import suppress
from functools import partial

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.disks import GIB, plan_disks
from activities.control.events import is_late, write_events
from activities.control.find import check_zone, find, find_flavor, find_host, find_keypair
from activities.control.limits import limits_of
from activities.control.migrations import abandon_move, end_migrations, give_up_former, open_migration, owe
from activities.control.quotas import check_quota
from activities.control.room import match_disks
from activities.control.taking import let_go, take
from activities.control.targets import target_of
from activities.control.user_data import seal
from activities.control.views import flavor_view, server_view
from activities.interfaces import servers as interface
from activities.interfaces.guests import Guests
from activities.interfaces.servers import (
    AcceptBoot,
    Activate,
    Begin,
    BootPlan,
    EventLog,
    Note,
    ServerRef,
    SetTaskState,
    Settle,
    Target,
)
from hostler.contract.audit import FindingKind
from hostler.contract.errors import Conflict, HostlerError, NotFound
from hostler.contract.resources import Flavor, VolumeStatus
from hostler.contract.servers import BootRequest, Fault, MigrationStatus, NetworkRequest, OperationName, Server, Step
from hostler.contract.states import PowerState, TaskState, VmState, status
from hostler.contract.validation import check_boot
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import Database, Network, ServerEvent, Volume, bump_generation, lock_quota, now
from models import Server as Row
from scheduler.reservation import former_hosts, lock_hosts, release, release_former, release_others

POWERED = ((VmState.ACTIVE, PowerState.RUNNING), (VmState.STOPPED, PowerState.SHUTDOWN))
DROP_FORMER = Guests.drop_former_guest.__name__


class Servers(interface.Servers):
    """Owner of the server rows."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._keys = load_keys(settings)

    @activity.defn(name="accept")
    def accept(self, call: AcceptBoot) -> BootPlan:
        check_boot(call.request)
        try:
            return self._database.run(partial(self._accept, call=call))
        except HostlerError as refusal:
            # A try before this one, whose answer was lost, may have entered the row for this run.
            if not refusal.retryable:
                ours = {"server_id": call.request.server_id, "run_id": call.run_id}
                events = EventLog(**ours, operation=OperationName.BOOT, steps=[])
                with suppress(NotFound):
                    self.settle(Settle(**ours, vm_state=VmState.ERROR, error=refusal.detail, events=events))
            raise

    def _accept(self, session: Session, call: AcceptBoot) -> BootPlan:
        request = call.request
        lock_quota(session, request.project)  # one at a time: this very request may be here twice
        row = session.get(Row, request.server_id, with_for_update=True)
        if row is None:
            plan = self._plan(session, request)
            row = _new_row(call, plan)
            row.user_data = seal(self._keys, row.id, request.user_data)
            session.add(row)
            return plan
        if row.request_fingerprint != call.fingerprint or row.deleted_at is not None:
            raise Conflict(
                f"the UUID {request.server_id} is taken by server {row.name}, {status(row.vm_state, row.task_state)}",
                field="server_id",
                value=request.server_id,
                remedy="choose another UUID",
            )
        if row.operation_id == call.run_id:  # this step ran before, and its answer was lost
            return self._plan(session, request, held=row)
        return BootPlan(
            server_id=row.id,
            name=row.name,
            project=row.project,
            flavor=Flavor.model_validate(row.flavor),
            repeated=server_view(session, row),
            former_run_id=_boot_run(session, row),
        )

    def _plan(self, session: Session, request: BootRequest, held: Row | None = None) -> BootPlan:
        flavor = find_flavor(session, request.flavor)
        disks = plan_disks(session, request, flavor)
        networks = [
            NetworkRequest(network=find(session, Network, one.network, request.project).id, fixed_ip=one.fixed_ip)
            for one in request.networks
        ]
        keys = _public_keys(session, request, held)
        check_zone(session, request.availability_zone)
        if request.host is not None:
            find_host(session, request.host)
        if held is None:
            new_volumes = [disk for disk in disks if disk.create]
            check_quota(
                session,
                request.project,
                servers=1,
                vcpus=flavor.vcpus,
                ram_mib=flavor.ram_mib,
                volumes=len(new_volumes),
                volume_gib=sum(disk.size_bytes for disk in new_volumes) // GIB,
            )
        return BootPlan(
            server_id=request.server_id,
            name=request.name,
            project=request.project,
            flavor=flavor_view(flavor),
            image=next((disk.image for disk in disks if disk.volume_id is None and disk.image), None),
            networks=networks,
            disks=disks,
            public_keys=keys,
            limits=limits_of(self._settings, OperationName.BOOT, request.max_attempts),
        )

    @activity.defn(name="set_task_state")
    def set_task_state(self, call: SetTaskState) -> None:
        def change(session: Session) -> None:
            row = session.get(Row, call.server_id, with_for_update=True)
            if row is not None and row.operation_id == call.run_id:
                row.task_state = call.task_state

        self._database.run(change)

    @activity.defn(name="note")
    def note(self, call: Note) -> None:
        def change(session: Session) -> None:
            row = session.get(Row, call.events.server_id, with_for_update=True)
            ours = row is not None and row.operation_id == call.events.run_id
            if row is not None and ours and not is_late(session, call.events):
                row.hold = None if call.hold is None else call.hold.model_dump(mode="json")
                write_events(session, call.events)

        self._database.run(change)

    @activity.defn(name="activate")
    def activate(self, call: Activate) -> Server:
        def change(session: Session) -> Server:
            row = _row(session, call.server_id)
            if row.operation_id == call.run_id:
                row.vm_state, row.task_state, row.power_state = VmState.ACTIVE, None, call.power_state
                row.host_id, row.launched_at, row.fault, row.operation_id = call.host_id, now(), None, None
                row.hold = None
                release_others(session, row.id, call.host_id)
                for volume in session.exec(select(Volume).where(Volume.server_id == row.id)):
                    volume.status = VolumeStatus.IN_USE
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="begin")
    def begin(self, call: Begin) -> Target:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: Begin) -> Target:
        return target_of(session, take(session, call), limits_of(self._settings, call.operation))

    @activity.defn(name="settle")
    def settle(self, call: Settle) -> Server:
        def change(session: Session) -> Server:
            row = _row(session, call.server_id)
            if row.operation_id == call.run_id:
                if _keeps_guest_in_place(session, row, call):
                    _owe_former(session, row, call.run_id)
                _settle(row, call)
                abandon_move(session, row, call.run_id)
                if call.events.operation is OperationName.REBUILD and _has_its_disks(session, row):
                    match_disks(session, row)
                if not call.keeps_others:
                    release_others(session, row.id, row.host_id)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="finish_delete")
    def finish_delete(self, call: EventLog) -> Server:
        def change(session: Session) -> Server:
            row = _row(session, call.server_id)
            if row.operation_id == call.run_id:
                _give_up_other_formers(session, row, call.run_id)
                row.vm_state, row.task_state, row.power_state = VmState.DELETED, None, PowerState.NOSTATE
                row.deleted_at, row.operation_id, row.host_id, row.user_data = now(), None, None, None
                row.hold = None
                row.request_fingerprint = ""  # with which a guess of the user data could be tried
                release(session, row.id)
                release_former(session, row.id)
                end_migrations(session, row.id, MigrationStatus.ERROR)
                write_events(session, call)
            return server_view(session, row)

        return self._database.run(change)


def _give_up_other_formers(session: Session, row: Row, run_id: str) -> None:
    """The delete has dropped what its open move had set aside. An evacuation of a server that was to be confirmed or
    reverted, and was cut short, has left the same on another host.
    """
    lock_hosts(session, row.id)
    move = open_migration(session, row.id)
    for host_id in former_hosts(session, row.id):
        if move is None or host_id != move.source_id:
            give_up_former(session, row, run_id, host_id, stays=None)


def _settle(row: Row, call: Settle) -> None:
    let_go(row)
    if call.vm_state is not None:
        row.vm_state = call.vm_state
    if call.power_state is not None:
        row.power_state = call.power_state
    if call.vm_state is VmState.ERROR and call.error is not None:
        row.fault = Fault(created_at=now(), error=call.error).model_dump(mode="json")
    elif call.vm_state not in (None, VmState.ERROR):
        row.fault = None


def _keeps_guest_in_place(session: Session, row: Row, call: Settle) -> bool:
    """Whether a rebuild of the server in error was cut short, and its guest was now switched on or off as it is.

    Whoever asked for that has chosen it. There is one in its place: the host has said what it is since, and would have
    refused without. Left there, the former one would keep the server from moving, and replace the other one day, when a
    rebuild of the server, in error again, brings it back.
    """
    if call.events.operation not in (OperationName.STOP, OperationName.REBOOT) or row.vm_state is not VmState.ERROR:
        return False
    if (call.vm_state, call.power_state) not in POWERED or open_migration(session, row.id) is not None:
        return False
    return _was_rebuilt_last(session, row.id, FindingKind.LOST_OPERATION, DROP_FORMER)  # and nobody has cleared up


def _has_its_disks(session: Session, row: Row) -> bool:
    """Whether its disks are those of its row. After a rebuild that was cut short nobody knows."""
    return row.vm_state is not VmState.ERROR and not _was_rebuilt_last(session, row.id, FindingKind.LOST_OPERATION)


def _was_rebuilt_last(session: Session, server_id: str, *known: str) -> bool:
    """Whether the last operation on the server that was cut short was a rebuild, by the steps that tell of such."""
    query = select(ServerEvent).where(
        ServerEvent.server_id == server_id, col(ServerEvent.operation) == OperationName.AUDIT
    )
    steps = [Step.model_validate(row.step) for row in session.exec(query.order_by(col(ServerEvent.id)))]
    steps = [step for step in steps if step.name in known]
    rebuilding = f"was {status(VmState.ACTIVE, TaskState.REBUILDING)}"
    return bool(steps) and (steps[-1].note or "").endswith(rebuilding)


def _owe_former(session: Session, row: Row, run_id: str) -> None:
    """Its host is to remove the guest that the rebuild has set aside, if it had come that far."""
    assert row.host_id is not None
    bump_generation(session, row.host_id)
    ref = ServerRef(server_id=row.id, run_id=run_id)
    why = f"a rebuild of server {row.name} was cut short, and the guest in place is the one that is kept"
    owe(session, row, run_id, row.host_id, Guests.drop_former_guest, ref, reason=why)


def _new_row(call: AcceptBoot, plan: BootPlan) -> Row:
    request = call.request
    root = next((disk.image for disk in plan.disks if disk.bootable and disk.image), None)
    return Row(
        id=request.server_id,
        project=request.project,
        name=request.name,
        vm_state=VmState.BUILDING,
        task_state=TaskState.SCHEDULING,
        flavor=plan.flavor.model_dump(mode="json"),
        flavor_id=plan.flavor.id,
        flavor_name=plan.flavor.name,
        vcpus=plan.flavor.vcpus,
        ram_mib=plan.flavor.ram_mib,
        image_id=root.id if root else None,
        image_name=request.image,
        availability_zone=request.availability_zone,
        key_name=request.key_name,
        public_keys=plan.public_keys,
        metadata_=request.metadata,
        config_drive=request.config_drive,
        operation_id=call.run_id,
        request_fingerprint=call.fingerprint,
    )


def _public_keys(session: Session, request: BootRequest, held: Row | None) -> dict[str, str]:
    """The key pair that the request names, by name. The row that is there already has kept it."""
    if held is not None and held.public_keys is not None:
        return held.public_keys
    if request.key_name is None:
        return {}
    return {request.key_name: find_keypair(session, request.key_name, request.project).public_key}


def _boot_run(session: Session, row: Row) -> str | None:
    """The run that built the server."""
    query = select(ServerEvent.run_id).where(
        ServerEvent.server_id == row.id, col(ServerEvent.operation) == OperationName.BOOT
    )
    return session.exec(query).first() or row.operation_id


def _row(session: Session, server_id: str) -> Row:
    row = session.get(Row, server_id, with_for_update=True)
    if row is None:
        raise NotFound(f"no server {server_id}", field="server", value=server_id)
    return row
