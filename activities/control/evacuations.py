"""Evacuations: the server's row, allocation and migration, and what the host that is down owes."""

import asyncio
from datetime import timedelta
from functools import partial

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.arriving import arrive
from activities.control.guest_plans import disks_of, plan_guest
from activities.control.limits import limits_of
from activities.control.migrations import (
    check_destination,
    count,
    end_migrations,
    give_up_former,
    is_half_back,
    new_migration,
    open_migration,
    out_of_move,
    owe,
    restore_devices,
    wear,
)
from activities.control.taking import held, take
from activities.control.targets import target_of
from activities.control.temporal import Temporal
from activities.control.views import image_ref
from activities.interfaces import evacuations as interface
from activities.interfaces.evacuations import BeginEvacuation, EvacuationPlan, FinishEvacuation
from activities.interfaces.guests import Claims, ExpectGuest, Guests, StopGuest
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import InvalidState, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk, ImageRef
from hostler.contract.resources import Flavor, ImageStatus
from hostler.contract.servers import MigrationKind, MigrationStatus, OperationName, Server
from hostler.contract.states import VmState
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import Database, Host, Image, Migration, ServerEvent, Volume, forget_start, owes
from models import Server as Row
from scheduler.liveness import Alive
from scheduler.reservation import former_hosts, lock_hosts, make_former, own_hosts


class Evacuations(interface.Evacuations):
    """Owner of the rows of evacuations."""

    def __init__(self, database: Database, settings: Settings, alive: Alive, temporal: Temporal) -> None:
        self._database = database
        self._settings = settings
        self._alive = alive
        self._temporal = temporal
        self._keys = load_keys(settings)

    @activity.defn(name="begin_evacuation")
    async def begin_evacuation(self, call: BeginEvacuation) -> EvacuationPlan:
        lacking = await self._lacking(call)
        return await asyncio.to_thread(self._database.run, partial(self._begin, call=call, lacking=lacking))

    async def _lacking(self, call: BeginEvacuation) -> str | None:
        """The host, up, that alone could still have the server's guest, and says that it has not."""

        def keeper() -> tuple[HostRef, ExpectGuest] | None:
            with self._database.read() as session:
                return _keeper(session, call)

        asked = await asyncio.to_thread(keeper)
        if asked is None or asked[0].id not in self._alive():
            return None
        host, guest = asked
        return host.id if await self._temporal.has_none(host, guest) else None

    def _begin(self, session: Session, call: BeginEvacuation, lacking: str | None) -> EvacuationPlan:
        if _waits(session, call):
            call = call.model_copy(update={"allowed": [*call.allowed, VmState.RESIZED]})
        row = take(session, call)
        assert row.host_id is not None
        move = open_migration(session, row.id)
        former = [move.source_id] if move is not None else []
        lock_hosts(session, row.id, row.host_id, *former)  # one of them may be registering at this moment
        migration = session.get(Migration, call.run_id)
        if migration is None and move is not None and is_half_back(row, move):
            _go_back(session, row, move, lacking)
        source = session.get_one(Host, row.host_id, populate_existing=True)
        reserved = {source.id, *own_hosts(session, row.id)}
        disks = _disks(session, row)
        if migration is None:
            check_destination(session, row, call.host, source)
            _check_former(session, row, lacking)
            _check_down(session, row, source, self._alive())
            _check_volumes(session, row)
            _check_root(row, disks)
            for host_id in sorted(reserved):  # first: it waits for no other work of the server
                _switch_off(session, row, session.get_one(Host, host_id, populate_existing=True), call.run_id)
            migration = _enter(session, row, call.run_id)
        target = target_of(session, row, limits_of(self._settings, call.operation, call.max_attempts))
        plan = plan_guest(session, self._keys, row, disks=disks)
        guest = plan.guest.model_copy(update={"taken_over_from": source.id})
        target.hosts = [host for host in target.hosts if host.id in reserved]
        return EvacuationPlan(
            **target.model_dump(),
            plan=plan.model_copy(update={"guest": guest}),
            stays_off=migration.former_vm_state is VmState.STOPPED,
            host=call.host,
            because=_why(source),
        )

    @activity.defn(name="finish_evacuation")
    def finish_evacuation(self, call: FinishEvacuation) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            migration = session.get(Migration, call.run_id)
            if ours and migration is not None:
                lock_hosts(session, row.id)
                for host_id in former_hosts(session, row.id):
                    if host_id != migration.source_id:  # which owes it already
                        give_up_former(session, row, call.run_id, host_id, stays=call.host_id)
            return arrive(session, call, call.vm_state, call.image_id)

        return self._database.run(change)


def _waits(session: Session, call: BeginEvacuation) -> bool:
    """Whether the server waits for its move to be decided on."""
    row = session.get(Row, call.server_id, with_for_update=True)
    return row is not None and row.vm_state is VmState.RESIZED


def _keeper(session: Session, call: BeginEvacuation) -> tuple[HostRef, ExpectGuest] | None:
    """The host that may still have what an evacuation would lose, and what it is asked for: of a resize or migration
    that waits, the source; of one whose revert was cut short, the target. Not one that was declared down.
    """
    row, move = session.get(Row, call.server_id), open_migration(session, call.server_id)
    if row is None or move is None or move.source_id == row.host_id:
        return None
    back = is_half_back(row, move)
    host = session.get(Host, row.host_id if back else move.source_id)
    if host is None or host.down_since is not None or not (back or row.vm_state is VmState.RESIZED):
        return None
    return HostRef(id=host.id, name=host.name), ExpectGuest(server_id=row.id, former=not back)


def _disks(session: Session, row: Row) -> list[GuestDisk]:
    """As they are. A root disk whose own image is gone, as after an unshelve, is made of the server's, as Nova does."""
    image = session.get(Image, row.image_id) if row.image_id else None
    usable = image_ref(image) if image is not None and image.status is ImageStatus.ACTIVE else None
    return [disk.model_copy(update={"image": _image(disk, usable)}) for disk in disks_of(session, row)]


def _image(disk: GuestDisk, of_server: ImageRef | None) -> ImageRef | None:
    is_local_root = disk.kind is DiskKind.ROOT and disk.volume_id is None
    return disk.image or (of_server if is_local_root else None)


def _why(source: Host) -> str | None:
    """None for a host that came back while the evacuation, which had been cut short, was gone on with."""
    if source.down_since is None:
        return None
    return f"host {source.name} is down since {source.down_since:%Y-%m-%d %H:%M:%S}: {source.down_reason}"


def _check_former(session: Session, row: Row, lacking: str | None) -> None:
    """A server that waits for a decision is not built anew while it can still be what it was.

    Raises:
        InvalidState: its former guest's host has not been declared down, and has not said that there is none: a
            confirmation that was cut short may have removed it.
    """
    migration = open_migration(session, row.id) if row.vm_state is VmState.RESIZED else None
    if migration is None:
        return
    host = session.get_one(Host, migration.source_id, populate_existing=True)
    if host.down_since is None and host.id != lacking:
        raise InvalidState(
            f"server {row.name} is VERIFY_RESIZE: what it was before is on host {host.name}, which is not down",
            field="server",
            value=row.id,
            remedy=f"bring that back: hostler server revert {row.id}",
        )


def _check_down(session: Session, row: Row, source: Host, alive: frozenset[str]) -> None:
    """Nobody may be building a server a second time while its guest runs.

    Raises:
        InvalidState: it may.
        Unavailable: the host seems to answer. Either it registers within seconds, and is no longer down; or it is this
            worker that has not noticed yet.
    """
    if source.down_since is None:
        raise InvalidState(
            f"host {source.name} has not been declared down: the guest of server {row.name} may be running there",
            field="host",
            value=source.name,
            remedy=f"if the machine is off: hostler host declare-down {source.name} --reason ...; if it is up: "
            + _if_up(session, row),
        )
    if source.id in alive:
        raise Unavailable(
            f"host {source.name}, which was declared down, seems to answer", field="host", value=source.name
        )


def _if_up(session: Session, row: Row) -> str:
    """What to do instead where the server's host is up."""
    if row.vm_state is VmState.RESIZED:
        return f"hostler server confirm {row.id}"
    if row.vm_state is not VmState.ERROR:
        return f"hostler server migrate {row.id}"
    move = open_migration(session, row.id)
    return out_of_move(move) if move is not None else f"hostler server reboot --hard {row.id}"


def _check_volumes(session: Session, row: Row) -> None:
    """What is kept on a host that is off cannot be reached from elsewhere either.

    Raises:
        InvalidState: a volume is.
    """
    kept = select(Volume.id, Host.name).join(Host, col(Host.id) == Volume.host_id)
    found = session.exec(kept.where(Volume.server_id == row.id, col(Host.down_since).is_not(None))).first()
    if found is not None:
        volume_id, host = found
        raise InvalidState(
            f"volume {volume_id} of server {row.name} is kept on host {host}, which is down",
            field="volume",
            value=volume_id,
            remedy=f"wait for {host}: the volume's data is nowhere else",
        )


def _check_root(row: Row, disks: list[GuestDisk]) -> None:
    """There must be something to make the root disk from.

    Raises:
        InvalidState: there is not.
    """
    if any(disk.kind is DiskKind.ROOT and disk.volume_id is None and disk.image is None for disk in disks):
        raise InvalidState(
            f"the image of server {row.name} is no longer there: nothing to build it from",
            field="image",
            value=row.image_id,
            remedy=f"import the same file again under its UUID, in project {row.project} (hostler image create --id), "
            "or wait for the host",
        )


def _go_back(session: Session, row: Row, move: Migration, lacking: str | None) -> None:
    """A revert that was cut short, and whose source never returns: the server is what it was and where that is.

    Raises:
        InvalidState: its target has not been declared down, and has not said that nothing of the server is left there.
    """
    target = session.get_one(Host, row.host_id, populate_existing=True)
    if target.id != move.source_id and target.down_since is None and target.id != lacking:
        raise InvalidState(
            f"host {target.name} may have the guest of server {row.name}, as it is since its move",
            field="host",
            value=target.name,
            remedy=f"keep that: hostler server confirm {row.id}; if the machine is off: "
            f"hostler host declare-down {target.name} --reason ...",
        )
    restore_devices(session, move)
    wear(row, Flavor.model_validate(move.old_flavor))
    row.host_id = move.source_id


def _enter(session: Session, row: Row, run_id: str) -> Migration:
    """The evacuation's own row. It goes on from a move that was cut short: that has the former allocation already."""
    migration = new_migration(row, run_id, MigrationKind.EVACUATION)
    earlier = open_migration(session, row.id)
    before = earlier or _failed_before(session, row)
    if before is not None:
        migration.former_vm_state, migration.former_power_state = before.former_vm_state, before.former_power_state
    if earlier is not None and (earlier.status is MigrationStatus.MIGRATING or is_half_back(row, earlier)):
        earlier.status = MigrationStatus.ERROR
        if earlier.kind is not MigrationKind.EVACUATION:
            _take_back(session, row, run_id)
    else:
        if earlier is not None:
            _confirm(session, row, earlier, run_id)
        make_former(session, row.id)
    session.add(migration)
    return migration


def _failed_before(session: Session, row: Row) -> Migration | None:
    """The evacuation that left the server in error, and knows what it was: nothing has been done to it since."""
    query = select(Migration).where(Migration.server_id == row.id).order_by(col(Migration.created_at).desc())
    last = session.exec(query).first()
    failed = last is not None and (last.kind, last.status) == (MigrationKind.EVACUATION, MigrationStatus.ERROR)
    if row.vm_state is not VmState.ERROR or last is None or not failed:
        return None
    done = select(ServerEvent.run_id).where(
        ServerEvent.server_id == row.id, col(ServerEvent.operation) != OperationName.AUDIT
    )
    return last if session.exec(done.order_by(col(ServerEvent.id).desc())).first() == last.id else None


def _take_back(session: Session, row: Row, run_id: str) -> None:
    """A resize or migration that got nowhere, as a revert does: its source is to have the former guest in its place."""
    assert row.host_id is not None
    ref = ServerRef(server_id=row.id, run_id=run_id)
    for work in (Claims.bring_back_claim, Guests.bring_back_guest):
        owe(session, row, run_id, row.host_id, work, ref)
    count(row, Flavor.model_validate(row.flavor))


def _confirm(session: Session, row: Row, move: Migration, run_id: str) -> None:
    """A move that waits: what the server is now is built anew, and not what it was, which is kept until that is there.

    Not on the server's own host: whoever goes on after the evacuation could not tell which guest is in its place.
    """
    if move.source_id != row.host_id:
        move.status = MigrationStatus.CONFIRMED
        return
    end_migrations(session, row.id, MigrationStatus.CONFIRMED)
    give_up_former(session, row, run_id, move.source_id, stays=row.host_id)
    row.vm_state = move.former_vm_state


def _switch_off(session: Session, row: Row, host: Host, run_id: str) -> None:
    """Should a host that is down come back in the middle of it, then the guest must not run; its disks it keeps.

    Once is enough, however many evacuations find no room while the host is away.
    """
    if host.id != row.host_id and host.down_since is None:
        return
    forget_start(session, row.id, host.id)
    if owes(session, row.id, host.id, Guests.stop_guest.__name__):
        return
    owe(session, row, run_id, host.id, Guests.stop_guest, StopGuest(server_id=row.id, timeout=timedelta(0)))
