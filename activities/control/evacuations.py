"""Evacuations: the server's row, allocation and migration, and what the host that is down owes."""

from datetime import timedelta
from functools import partial
from uuid import NAMESPACE_URL, uuid5

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.arriving import arrive
from activities.control.guest_plans import disks_of, plan_guest
from activities.control.limits import limits_of
from activities.control.migrations import check_destination, new_migration, open_migration
from activities.control.taking import forget_start, take
from activities.control.targets import target_of
from activities.control.views import image_ref
from activities.interfaces import evacuations as interface
from activities.interfaces.evacuations import BeginEvacuation, EvacuationPlan, FinishEvacuation
from activities.interfaces.guests import Guests, StopGuest
from hostler.contract.errors import InvalidState, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk, ImageRef
from hostler.contract.resources import ImageStatus
from hostler.contract.servers import MigrationKind, MigrationStatus, Server
from hostler.contract.states import VmState
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import Database, Host, Image, Migration, OwedWork, Volume, bump_generation
from models import Server as Row
from scheduler.liveness import Alive
from scheduler.reservation import make_former


class Evacuations(interface.Evacuations):
    """Owner of the rows of evacuations."""

    def __init__(self, database: Database, settings: Settings, alive: Alive) -> None:
        self._database = database
        self._settings = settings
        self._alive = alive
        self._keys = load_keys(settings)

    @activity.defn(name="begin_evacuation")
    def begin_evacuation(self, call: BeginEvacuation) -> EvacuationPlan:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginEvacuation) -> EvacuationPlan:
        row = take(session, call)
        source = session.get_one(Host, row.host_id)
        target = target_of(session, row, limits_of(self._settings, call.operation, call.max_attempts))
        disks = _disks(session, row)
        migration = session.get(Migration, call.run_id)
        if migration is None:
            check_destination(session, row, call.host, source)
            _check_down(row, source, self._alive())
            _check_volumes(session, row)
            _check_root(row, disks)
            migration = _enter(session, row, call.run_id)
            _switch_off(session, row, source, call.run_id)
        plan = plan_guest(session, self._keys, row, disks=disks)
        guest = plan.guest.model_copy(update={"taken_over_from": source.id})
        return EvacuationPlan(
            **target.model_dump(),
            plan=plan.model_copy(update={"guest": guest}),
            stays_off=migration.former_vm_state is VmState.STOPPED,
            host=call.host,
        )

    @activity.defn(name="finish_evacuation")
    def finish_evacuation(self, call: FinishEvacuation) -> Server:
        return self._database.run(lambda session: arrive(session, call, call.vm_state, call.image_id))


def _disks(session: Session, row: Row) -> list[GuestDisk]:
    """As they are. A root disk whose own image is gone, as after an unshelve, is made of the server's, as Nova does."""
    image = session.get(Image, row.image_id) if row.image_id else None
    usable = image_ref(image) if image is not None and image.status is ImageStatus.ACTIVE else None
    return [disk.model_copy(update={"image": _image(disk, usable)}) for disk in disks_of(session, row)]


def _image(disk: GuestDisk, of_server: ImageRef | None) -> ImageRef | None:
    is_local_root = disk.kind is DiskKind.ROOT and disk.volume_id is None
    return disk.image or (of_server if is_local_root else None)


def _check_down(row: Row, source: Host, alive: frozenset[str]) -> None:
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
            f"hostler server migrate {row.id}",
        )
    if source.id in alive:
        raise Unavailable(
            f"host {source.name}, which was declared down, seems to answer", field="host", value=source.name
        )


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
            remedy="import it again under its UUID (hostler image create --id), or wait for the host",
        )


def _enter(session: Session, row: Row, run_id: str) -> Migration:
    """The evacuation's own row. It goes on from one that was cut short: that has the former allocation already."""
    migration = new_migration(row, run_id, MigrationKind.EVACUATION)
    earlier = open_migration(session, row.id)
    if earlier is None:
        make_former(session, row.id)
    else:
        earlier.status = MigrationStatus.ERROR
        migration.former_vm_state, migration.former_power_state = earlier.former_vm_state, earlier.former_power_state
    session.add(migration)
    return migration


def _switch_off(session: Session, row: Row, source: Host, run_id: str) -> None:
    """Should the host come back in the middle of it, then the guest must not run; its disks it keeps."""
    bump_generation(session, source.id)
    forget_start(session, row.id, source.id)
    stop = StopGuest(server_id=row.id, timeout=timedelta(0))
    session.add(
        OwedWork(
            id=str(uuid5(NAMESPACE_URL, f"{run_id}/stop")),
            host_id=source.id,
            server_id=row.id,
            activity=Guests.stop_guest.__name__,
            argument=stop.model_dump(mode="json"),
            reason=f"it was declared down, and server {row.name} is built elsewhere",
        )
    )
