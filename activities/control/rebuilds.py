"""Rebuilds: the server's row and its root disk's image."""

from functools import partial

from sqlmodel import Session, select
from temporalio import activity

from activities.control.disks import check_fits, check_ram
from activities.control.events import write_events
from activities.control.find import find, find_keypair
from activities.control.guest_plans import disks_of, plan_guest
from activities.control.limits import limits_of
from activities.control.room import match_disks, take_room
from activities.control.taking import held, let_go, take
from activities.control.targets import target_of
from activities.control.user_data import seal
from activities.control.views import image_ref, server_view
from activities.interfaces import rebuilds as interface
from activities.interfaces.rebuilds import BeginRebuild, FinishRebuild, RebuildPlan
from hostler.contract.errors import InvalidRequest, InvalidState, NotFound
from hostler.contract.guests import DiskKind
from hostler.contract.operation_checks import check_config_drive
from hostler.contract.resources import Flavor
from hostler.contract.servers import Server
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import BlockDevice, Database, Image
from models import Server as Row
from scheduler.filters import explain, image_filters
from scheduler.host_state import read_states


class Rebuilds(interface.Rebuilds):
    """What a rebuild does to the server's row."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._keys = load_keys(settings)

    @activity.defn(name="begin_rebuild")
    def begin_rebuild(self, call: BeginRebuild) -> RebuildPlan:
        return self._database.run(partial(self._begin, call=call))

    def _begin(self, session: Session, call: BeginRebuild) -> RebuildPlan:
        row = take(session, call)
        target = target_of(session, row, limits_of(self._settings, call.operation))
        if target.root_volume:
            raise InvalidState(
                f"the root disk of server {row.name} is a volume, which a rebuild does not write over",
                field="server",
                value=row.id,
                remedy="delete the server and boot another from the image",
            )
        check_config_drive(
            row.config_drive, key_name=call.key_name, user_data=call.user_data, admin_password=call.admin_password
        )
        image = _image(session, row, call)
        flavor = Flavor.model_validate(row.flavor)
        check_fits(image, flavor.disk_gib, "image")
        check_ram(image, flavor)
        _check_host(session, row, image)
        if call.key_name:
            find_keypair(session, call.key_name, row.project)
        disks = [
            disk.model_copy(
                update={
                    "image": image_ref(image),
                    "size_bytes": disk.size_bytes if flavor.disk_gib else image.virtual_size_bytes,
                }
            )
            if disk.kind is DiskKind.ROOT
            else disk
            for disk in disks_of(session, row)
        ]
        take_room(session, row, image, disks)
        plan = plan_guest(session, self._keys, row, disks=disks, key_name=call.key_name, user_data=call.user_data)
        plan.guest.user_data = plan.guest.user_data or None
        plan.guest.admin_password = call.admin_password
        plan.guest.preserve_ephemeral = call.preserve_ephemeral
        return RebuildPlan(
            **target.model_dump(),
            plan=plan,
            image_name=row.image_name if call.image is None else image.name,
            key_name=row.key_name if call.key_name is None else call.key_name or None,
        )

    @activity.defn(name="finish_rebuild")
    def finish_rebuild(self, call: FinishRebuild) -> Server:
        def change(session: Session) -> Server:
            row, ours = held(session, call.server_id, call.run_id)
            if ours:
                row.vm_state, row.power_state, row.fault = call.vm_state, call.power_state, None
                row.image_id, row.image_name, row.key_name = call.image_id, call.image_name, call.key_name
                row.public_keys = call.public_keys
                if call.user_data is not None:
                    row.user_data = seal(self._keys, row.id, call.user_data or None)
                _set_root(session, row, call)
                let_go(row)
                write_events(session, call.events)
            return server_view(session, row)

        return self._database.run(change)


def _image(session: Session, row: Row, call: BeginRebuild) -> Image:
    if call.image is not None:
        return find(session, Image, call.image, row.project)
    image = session.get(Image, row.image_id) if row.image_id else None
    if image is None:
        raise NotFound(
            f"the image of server {row.name} is no longer there",
            field="image",
            value=row.image_id,
            remedy="name another: hostler image list",
        )
    return image


def _check_host(session: Session, row: Row, image: Image) -> None:
    """The server's host can run the image, by the rule by which the scheduler finds a host for a new server.

    Raises:
        InvalidRequest: it cannot.
    """
    wanted = image_filters(image.properties.get("architecture"), image.properties.get("hypervisor_type"))
    for report in explain(read_states(session, [str(row.host_id)]), wanted):
        raise InvalidRequest(
            f"host {report.hosts[0]} of server {row.name} cannot run image {image.name}: it is {report.reason}",
            field="image",
            value=image.name,
            remedy="choose another: hostler image list; or boot a server from this one, on a host that can run it",
        )


def _set_root(session: Session, row: Row, call: FinishRebuild) -> None:
    """Of an image that has been deleted meanwhile the size is not known, and the larger one goes on counting."""
    query = select(BlockDevice).where(BlockDevice.server_id == row.id, BlockDevice.kind == DiskKind.ROOT)
    root, image = session.exec(query).first(), session.get(Image, call.image_id)
    if root is not None:
        root.image_id = call.image_id
        if image is not None and not row.flavor["disk_gib"]:
            root.size_bytes = image.virtual_size_bytes
            match_disks(session, row)
