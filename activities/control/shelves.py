"""Servers on the shelf: SHELVED with a host, SHELVED_OFFLOADED without, and back."""

from functools import partial

from sqlmodel import Session, select
from temporalio import activity

from activities.control.events import write_events
from activities.control.find import check_zone, find_host
from activities.control.guest_plans import disks_of, plan_guest
from activities.control.limits import limits_of
from activities.control.taking import held, let_go, take
from activities.control.targets import target_of
from activities.control.views import image_ref, server_view
from activities.interfaces import shelves as interface
from activities.interfaces.servers import ServerRef
from activities.interfaces.shelves import BeginUnshelve, FinishOffload, FinishShelve, FinishUnshelve, UnshelvePlan
from drivers.image.base import ImageStore
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.guests import DiskKind, GuestDisk
from hostler.contract.resources import ImageStatus
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, VmState
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import BlockDevice, Database, Image, drop_image, now
from models import Server as Row
from scheduler.reservation import release, release_others


class Shelves(interface.Shelves):
    """What shelving does to the server's row, and what becomes of its image."""

    def __init__(self, database: Database, settings: Settings, store: ImageStore) -> None:
        self._database = database
        self._settings = settings
        self._keys = load_keys(settings)
        self._store = store

    @activity.defn(name="finish_shelve")
    def finish_shelve(self, call: FinishShelve) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            if ours:
                row.vm_state, row.power_state, row.fault = VmState.SHELVED, PowerState.SHUTDOWN, None
                row.shelved_image_id, row.shelved_at = call.image_id, now()
                if call.offloaded:
                    _offload(session, row)
                let_go(row)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="finish_offload")
    def finish_offload(self, call: FinishOffload) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            if ours:
                _offload(session, row)
                let_go(row)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name="begin_unshelve")
    def begin_unshelve(self, call: BeginUnshelve) -> UnshelvePlan:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginUnshelve) -> UnshelvePlan:
        if _left_in_error(session, call):
            call = call.model_copy(update={"allowed": [*call.allowed, VmState.ERROR]})
        row = take(session, call)
        offloaded = row.host_id is None
        _check_destination(session, row, call, offloaded)
        disks = disks_of(session, row)
        if offloaded and row.shelved_image_id is not None:
            disks = [_from_shelf(session, row, disk) for disk in disks]
        plan = plan_guest(session, self._keys, row, disks=disks)
        plan.guest.availability_zone = call.availability_zone or row.availability_zone
        target = target_of(session, row, limits_of(self._settings, call.operation, call.max_attempts))
        return UnshelvePlan(
            **target.model_dump(),
            plan=plan,
            offloaded=offloaded,
            availability_zone=call.availability_zone or row.availability_zone,
            host=call.host,
        )

    @activity.defn(name="forget_shelved")
    def forget_shelved(self, call: ServerRef) -> None:
        """See the interface. The file goes before the row, which names it."""
        with self._database.read() as session:
            row = session.get(Row, call.server_id)
            image_id = row.shelved_image_id if row is not None and row.operation_id == call.run_id else None
        if image_id is None:
            return
        self._store.remove(image_id)
        self._database.run(partial(drop_image, image_id=image_id))

    @activity.defn(name="finish_unshelve")
    def finish_unshelve(self, call: FinishUnshelve) -> Server:
        """See the interface. The image goes first: then a call that broke in between can be repeated."""
        self.forget_shelved(call)

        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            if ours:
                if row.host_id is None and row.shelved_image_id is not None:
                    _stand_on(session, row.id, row.shelved_image_id)
                row.vm_state, row.power_state, row.fault = VmState.ACTIVE, call.power_state, None
                row.host_id, row.shelved_image_id, row.shelved_at = call.host_id, None, None
                row.availability_zone = call.availability_zone
                release_others(session, row.id, call.host_id)
                let_go(row)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)


def _stand_on(session: Session, server_id: str, image_id: str) -> None:
    """The root disk is an overlay on this image from now on: its cached copy must stay, though the image goes."""
    query = select(BlockDevice).where(BlockDevice.server_id == server_id, BlockDevice.kind == DiskKind.ROOT)
    for root in session.exec(query):
        root.image_id = image_id


def _offload(session: Session, row: Row) -> None:
    row.vm_state, row.power_state, row.fault = VmState.SHELVED_OFFLOADED, PowerState.NOSTATE, None
    row.host_id = None
    release(session, row.id)


def _left_in_error(session: Session, call: BeginUnshelve) -> bool:
    """Whether an unshelve before left the server in error, on no host."""
    row = session.get(Row, call.server_id, with_for_update=True)
    if row is None or row.vm_state is not VmState.ERROR:
        return False
    return row.shelved_at is not None and row.host_id is None


def _check_destination(session: Session, row: Row, call: BeginUnshelve, offloaded: bool) -> None:
    check_zone(session, call.availability_zone)
    if call.host is not None:
        find_host(session, call.host)
    if not offloaded and (call.host or call.availability_zone):
        raise InvalidRequest(
            f"server {row.name} still has its host: it comes back there",
            field="host" if call.host else "availability_zone",
            value=call.host or call.availability_zone,
            remedy=f"first: hostler server shelve-offload {row.id}",
        )


def _from_shelf(session: Session, row: Row, disk: GuestDisk) -> GuestDisk:
    """The disk, the root one with the image that was made of it."""
    if disk.kind is not DiskKind.ROOT:
        return disk
    image = session.get(Image, row.shelved_image_id)
    if image is None or image.status is not ImageStatus.ACTIVE:
        raise Conflict(
            f"image {row.shelved_image_id}, which kept the disk of server {row.name}, is gone",
            field="server",
            value=row.id,
            remedy=f"import the same file again under its UUID, in project {row.project} (hostler image create --id), "
            "or delete the server",
        )
    return disk.model_copy(update={"image": image_ref(image)})
