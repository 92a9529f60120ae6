"""Block devices and volumes: their rows, and which host keeps a new volume."""

from functools import partial

from sqlmodel import Session, col, delete, func, select
from temporalio import activity

from activities.control.disks import GIB, check_fits
from activities.control.find import find
from activities.control.guest_plans import device_id
from activities.control.quotas import check_quota
from activities.control.views import host_names, image_ref, volume_view
from activities.interfaces import block_devices as interface
from activities.interfaces.block_devices import (
    AcceptVolume,
    HostVolumes,
    PrepareDevices,
    ReleaseDevices,
    VolumeRef,
    VolumeWork,
)
from activities.interfaces.servers import HostRef, Limits
from hostler.contract import resources
from hostler.contract.errors import Conflict, NotFound, NoValidHost, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk, VolumeSpec
from hostler.contract.resources import VolumeStatus
from hostler.contract.servers import DestinationType, SourceType
from hostler.contract.states import TaskState
from hostler.contract.validation import check_volume
from hostler.settings import TimeoutSettings
from models import BlockDevice, Database, Host, Image, OwedWork, Server, Volume
from scheduler.liveness import Alive


class BlockDevices(interface.BlockDevices):
    """Owner of the block device and volume rows."""

    def __init__(self, database: Database, alive: Alive, timeouts: TimeoutSettings) -> None:
        self._database = database
        self._alive = alive
        self._limits = Limits(host_answer=timeouts.host_answer)

    @activity.defn(name="prep_block_devices")
    def prep_block_devices(self, call: PrepareDevices) -> list[VolumeWork]:
        return self._database.run(partial(self._prepare, call=call))

    def _prepare(self, session: Session, call: PrepareDevices) -> list[VolumeWork]:
        server = session.get(Server, call.server_id, with_for_update=True)
        if server is None:
            raise NotFound(f"no server {call.server_id}", field="server", value=call.server_id)
        if server.operation_id == call.run_id:
            server.task_state = TaskState.BLOCK_DEVICE_MAPPING
        works = []
        for position, disk in enumerate(call.disks):
            mapping_id = device_id(session, call.server_id, position)
            session.merge(_mapping(mapping_id, call.server_id, position, disk))
            if disk.volume_id is None:
                continue
            volume = self._new(session, server, disk) if disk.create else _reserve(session, server, disk.volume_id)
            works.append(_work(session, volume, disk if disk.create else None))
        return works

    def _new(self, session: Session, server: Server, disk: GuestDisk) -> Volume:
        assert disk.volume_id is not None
        volume = session.get(Volume, disk.volume_id)
        if volume is None:
            size_gib = -(-disk.size_bytes // GIB)
            volume = Volume(
                id=disk.volume_id,
                project=server.project,
                size_gib=size_gib,
                status=VolumeStatus.CREATING,
                image_id=disk.image.id if disk.image else None,
                host_id=self._keeper(session, size_gib),
                server_id=server.id,
            )
            session.add(volume)
            session.flush()
        return volume

    @activity.defn(name="release_block_devices")
    def release_block_devices(self, call: ReleaseDevices) -> None:
        def change(session: Session) -> None:
            rows = session.exec(select(BlockDevice).where(BlockDevice.server_id == call.server_id)).all()
            for row in rows:
                volume = session.get(Volume, row.volume_id, with_for_update=True) if row.volume_id else None
                if volume is not None and volume.server_id == call.server_id:
                    made = row.source_type is not SourceType.VOLUME
                    if made if call.undo_boot else row.delete_on_termination:
                        session.delete(volume)
                    else:
                        volume.status, volume.server_id = VolumeStatus.AVAILABLE, None
                session.delete(row)

        self._database.run(change)

    @activity.defn(name="accept_volume")
    def accept_volume(self, call: AcceptVolume) -> VolumeWork:
        check_volume(call.request)
        return self._database.run(partial(self._accept, request=call.request))

    def _accept(self, session: Session, request: resources.VolumeCreate) -> VolumeWork:
        image = find(session, Image, request.image, request.project) if request.image else None
        if image is not None:
            check_fits(image, request.size_gib, "size_gib")
        volume = session.get(Volume, request.id)
        if volume is not None and (volume.size_gib, volume.name) != (request.size_gib, request.name):
            raise Conflict(
                f"the UUID {request.id} is taken by another volume",
                field="id",
                value=request.id,
                remedy="choose another",
            )
        if volume is None:
            check_quota(session, request.project, volumes=1, volume_gib=request.size_gib)
            volume = Volume(
                id=request.id,
                project=request.project,
                name=request.name,
                size_gib=request.size_gib,
                image_id=image.id if image else None,
                host_id=self._keeper(session, request.size_gib),
            )
            session.add(volume)
            session.flush()
        made = volume.status is not VolumeStatus.CREATING  # by the same request, once before
        spec = VolumeSpec(volume_id=volume.id, size_gib=volume.size_gib, image=image_ref(image) if image else None)
        work = VolumeWork(volume_id=volume.id, host=_host(session, volume), create=None if made else spec)
        return work.model_copy(update={"limits": self._limits})

    @activity.defn(name="finish_volume")
    def finish_volume(self, call: VolumeRef) -> resources.Volume:
        def change(session: Session) -> resources.Volume:
            volume = _volume(session, call.volume_id)
            if volume.status is VolumeStatus.CREATING:
                volume.status = VolumeStatus.AVAILABLE
            return volume_view(volume, host_names(session, {volume.host_id}).get(volume.host_id or ""))

        return self._database.run(change)

    @activity.defn(name="begin_delete_volume")
    def begin_delete_volume(self, call: VolumeRef) -> VolumeWork:
        def change(session: Session) -> VolumeWork:
            volume = _volume(session, call.volume_id)
            if volume.server_id is not None:
                raise Conflict(
                    f"volume {volume.id} is {volume.status} by server {volume.server_id}",
                    field="volume",
                    value=volume.id,
                    remedy="delete that server first",
                )
            volume.status = VolumeStatus.DELETING
            return _work(session, volume, None).model_copy(update={"limits": self._limits})

        return self._database.run(change)

    @activity.defn(name="forget_volume")
    def forget_volume(self, call: VolumeRef) -> None:
        # One that is there for good is another request's: this one was refused because of it.
        unfinished = col(Volume.status).in_([VolumeStatus.CREATING, VolumeStatus.DELETING])
        mine = (col(Volume.id) == call.volume_id, col(Volume.server_id).is_(None), unfinished)
        self._database.run(lambda session: session.exec(delete(Volume).where(*mine)))

    def _keeper(self, session: Session, size_gib: int) -> str:
        """The host that keeps a new volume: up, willing, with the most space not promised to other volumes."""
        promised = (
            select(func.coalesce(func.sum(Volume.size_gib), 0)).where(Volume.host_id == Host.id).scalar_subquery()
        )
        query = (
            select(Host.id)
            .where(col(Host.volumes).is_(True), col(Host.enabled).is_(True), col(Host.id).in_(self._alive()))
            .where(col(Host.down_since).is_(None))
            .order_by((Host.disk_gib - promised).desc())
        )
        best = session.exec(query).first()
        if best is None:
            raise NoValidHost(
                f"no host that is up keeps volumes, so none can keep one of {size_gib} GiB",
                field="volume",
                remedy="start a host worker with host.volumes = true: hostler host list",
            )
        return best


def _mapping(mapping_id: str, server_id: str, position: int, disk: GuestDisk) -> BlockDevice:
    source = SourceType.BLANK
    if disk.image is not None:
        source = SourceType.IMAGE
    elif disk.volume_id is not None and not disk.create:
        source = SourceType.VOLUME
    return BlockDevice(
        id=mapping_id,
        server_id=server_id,
        position=position,
        kind=disk.kind,
        device=disk.device,
        size_bytes=disk.size_bytes,
        source_type=source,
        destination_type=DestinationType.VOLUME if disk.volume_id else DestinationType.LOCAL,
        image_id=disk.image.id if disk.image else None,
        volume_id=disk.volume_id,
        bootable=disk.kind is DiskKind.ROOT,
        delete_on_termination=disk.delete_on_termination,
        guest_format=disk.guest_format,
    )


def _reserve(session: Session, server: Server, volume_id: str) -> Volume:
    volume = session.get(Volume, volume_id, with_for_update=True)
    if volume is None or volume.project != server.project:
        raise NotFound(
            f"no volume {volume_id}", field="block_device_mapping", value=volume_id, remedy="see: hostler volume list"
        )
    if volume.server_id != server.id:
        if volume.status is not VolumeStatus.AVAILABLE:
            raise Conflict(
                f"volume {volume_id} is {volume.status}",
                field="block_device_mapping",
                value=volume_id,
                remedy="name one that is available: hostler volume list",
            )
        _check_owed(session, volume)
        volume.status, volume.server_id = VolumeStatus.RESERVED, server.id
    return volume


def _check_owed(session: Session, volume: Volume) -> None:
    """What the volume's host has yet to withdraw for a server before, it would withdraw from the next one.

    Raises:
        Conflict: there is such work. It may last, so whoever asks is told rather than kept waiting.
    """
    withdrawing = col(OwedWork.activity) == HostVolumes.withdraw_volume.__name__
    query = select(Host.name, OwedWork.argument).join(OwedWork, col(OwedWork.host_id) == Host.id)
    for host, argument in session.exec(query.where(Host.id == volume.host_id, withdrawing)):
        if argument["volume_id"] == volume.id:
            raise Conflict(
                f"host {host} has yet to withdraw volume {volume.id} from a server that had it before",
                field="block_device_mapping",
                value=volume.id,
                remedy=f"it does so within seconds of being up: hostler host show {host}",
            )


def _work(session: Session, volume: Volume, created: GuestDisk | None) -> VolumeWork:
    spec = VolumeSpec(volume_id=volume.id, size_gib=volume.size_gib, image=created.image) if created else None
    return VolumeWork(volume_id=volume.id, host=_host(session, volume), create=spec)


def _host(session: Session, volume: Volume) -> HostRef:
    host = session.get(Host, volume.host_id) if volume.host_id else None
    if host is None:
        raise Unavailable(f"volume {volume.id} is on no host", field="volume", value=volume.id)
    return HostRef(id=host.id, name=host.name)


def _volume(session: Session, volume_id: str) -> Volume:
    volume = session.get(Volume, volume_id, with_for_update=True)
    if volume is None:
        raise NotFound(f"no volume {volume_id}", field="volume", value=volume_id, remedy="see: hostler volume list")
    return volume
