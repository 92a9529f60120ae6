"""Reads from a server's rows what it takes to build its guest again, as it is or as it shall be."""

from collections.abc import Sequence
from uuid import NAMESPACE_URL, uuid5

from sqlmodel import Session, col, select

from activities.control.disks import GIB, MIB
from activities.control.ports import binding
from activities.control.user_data import unseal
from activities.control.views import image_ref
from activities.interfaces.block_devices import VolumeWork
from activities.interfaces.plans import GuestPlan
from activities.interfaces.servers import HostRef
from hostler.contract.errors import InvalidRequest, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, ImageRef
from hostler.contract.resources import Flavor, ImageStatus
from hostler.contract.servers import DestinationType, SourceType
from hostler.encryption import Keys
from models import BlockDevice, Host, Image, KeyPair, Network, Port, Server, Volume


def plan_guest(
    session: Session,
    keys: Keys,
    row: Server,
    *,
    flavor: Flavor | None = None,
    disks: Sequence[GuestDisk] | None = None,
    key_name: str | None = None,
    user_data: str | None = None,
) -> GuestPlan:
    """The server's guest, of its own flavor and with its own disks, key and user data unless others are given.

    Raises:
        DecryptionFailed: the user data cannot be read.
        Unavailable: a volume is on no host.
    """
    flavor = flavor or Flavor.model_validate(row.flavor)
    disks = list(disks if disks is not None else disks_of(session, row))
    root = next((disk for disk in disks if disk.kind is DiskKind.ROOT), None)
    local_root = root is not None and root.volume_id is None
    properties = _properties(session, row.image_id)
    return GuestPlan(
        guest=GuestSpec(
            server_id=row.id,
            name=row.name,
            project=row.project,
            flavor=flavor.name,
            vcpus=flavor.vcpus,
            ram_mib=flavor.ram_mib,
            disks=disks,
            ports=[binding(port, network, row.name) for port, network in _ports(session, row)],
            metadata=row.metadata_,
            public_keys=_public_keys(session, row, key_name),
            user_data=user_data if user_data is not None else unseal(keys, row.id, row.user_data),
            config_drive=row.config_drive,
            availability_zone=row.availability_zone,
        ),
        image=root.image if root is not None and local_root else None,
        volumes=[_work(session, disk.volume_id) for disk in disks if disk.volume_id is not None],
        disk_gib=gib_of(disks),
        architecture=properties.get("architecture"),
        hypervisor_type=properties.get("hypervisor_type"),
    )


def disks_of(session: Session, row: Server) -> list[GuestDisk]:
    """The server's disks as they are. A root disk whose image is no longer in the catalogue has none."""
    query = select(BlockDevice).where(BlockDevice.server_id == row.id).order_by(col(BlockDevice.position))
    return [
        GuestDisk(
            kind=device.kind,
            device=device.device,
            size_bytes=device.size_bytes,
            bootable=device.bootable,
            image=_image(session, device.image_id) if device.volume_id is None else None,
            volume_id=device.volume_id,
            guest_format=device.guest_format,
            delete_on_termination=device.delete_on_termination,
        )
        for device in session.exec(query)
    ]


def gib_of(disks: Sequence[GuestDisk]) -> int:
    """What the disks take of a host, in whole GiB."""
    return -(-sum(disk.size_bytes for disk in disks if disk.volume_id is None) // GIB)


def resized(disks: Sequence[GuestDisk], old: Flavor, new: Flavor) -> list[GuestDisk]:
    """The disks under another flavor: local ones grow with it, swap is as large as it says; volumes stay.

    Raises:
        InvalidRequest: a disk would have to shrink.
    """
    result = [disk.model_copy() for disk in disks if disk.kind is not DiskKind.SWAP]
    root = next((disk for disk in result if disk.kind is DiskKind.ROOT and disk.volume_id is None), None)
    if root is not None and new.disk_gib != old.disk_gib:
        _grow(root, new.disk_gib * GIB, new, "root disk")
    ephemeral = [disk for disk in result if disk.kind is DiskKind.EPHEMERAL]
    if new.ephemeral_gib != old.ephemeral_gib:
        if len(ephemeral) == 1:
            _grow(ephemeral[0], new.ephemeral_gib * GIB, new, "ephemeral disk")
        elif sum(disk.size_bytes for disk in ephemeral) > new.ephemeral_gib * GIB:
            raise _too_small(new, "ephemeral disks", sum(disk.size_bytes for disk in ephemeral))
        elif not ephemeral:
            # Not on a device that swap had: its row would be taken for the disk's.
            result.append(_blank(DiskKind.EPHEMERAL, new.ephemeral_gib * GIB, [*result, *disks]))
    if new.swap_mib:
        former = next((disk for disk in disks if disk.kind is DiskKind.SWAP), None)
        swap = _blank(DiskKind.SWAP, new.swap_mib * MIB, result)
        result.append(swap.model_copy(update={"device": former.device}) if former else swap)
    return result


def device_id(session: Session, server_id: str, position: int) -> str:
    """The UUID of a block device: that which the release before gives it, whose worker may do this step again.

    It is made of the server's, and of two servers whose UUIDs differ in the last digits only the first one has it.
    """
    short = f"{server_id[:-3]}{position:03}"
    there = session.get(BlockDevice, short)
    if there is None or there.server_id == server_id:
        return short
    return str(uuid5(NAMESPACE_URL, f"{server_id}/device/{position}"))


def write_disks(session: Session, server_id: str, disks: Sequence[GuestDisk]) -> None:
    """Make the server's local block devices those that its guest has now; its volumes' stay as they are."""
    rows = {row.device: row for row in session.exec(select(BlockDevice).where(BlockDevice.server_id == server_id))}
    local = {disk.device: disk for disk in disks if disk.volume_id is None}
    for device, row in rows.items():
        if row.volume_id is None and device not in local:
            session.delete(row)
    position = max((row.position for row in rows.values()), default=-1) + 1
    for device, disk in local.items():
        if device in rows:
            rows[device].size_bytes = disk.size_bytes
            continue
        session.add(
            BlockDevice(
                id=device_id(session, server_id, position),
                server_id=server_id,
                position=position,
                kind=disk.kind,
                device=device,
                size_bytes=disk.size_bytes,
                source_type=SourceType.BLANK,
                destination_type=DestinationType.LOCAL,
            )
        )
        position += 1


def _grow(disk: GuestDisk, size_bytes: int, flavor: Flavor, what: str) -> None:
    if size_bytes < disk.size_bytes:
        raise _too_small(flavor, what, disk.size_bytes)
    disk.size_bytes = size_bytes


def _too_small(flavor: Flavor, what: str, size_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        f"flavor {flavor.name} has less room than the server's {what} of {size_bytes / GIB:g} GiB: "
        "disks grow, and do not shrink",
        field="flavor",
        value=flavor.name,
        remedy="choose a flavor with at least as much: hostler flavor list",
    )


def _blank(kind: DiskKind, size_bytes: int, beside: Sequence[GuestDisk]) -> GuestDisk:
    taken = {disk.device for disk in beside}
    device = next(name for letter in "abcdefghijklmnopqrstuvwxyz" if (name := f"vd{letter}") not in taken)
    return GuestDisk(kind=kind, device=device, size_bytes=size_bytes)


def _image(session: Session, image_id: str | None) -> ImageRef | None:
    image = session.get(Image, image_id) if image_id else None
    return image_ref(image) if image is not None and image.status is ImageStatus.ACTIVE else None


def _properties(session: Session, image_id: str | None) -> dict[str, str | None]:
    image = session.get(Image, image_id) if image_id else None
    return image.properties if image is not None else {}


def _public_keys(session: Session, row: Server, key_name: str | None) -> dict[str, str]:
    """The key pair that is asked for; with None the one that the server has, as it was when the server was given it."""
    if key_name is None and row.key_name in (row.public_keys or {}):
        return row.public_keys or {}
    # The row may be of the release before, which keeps the name alone.
    wanted = row.key_name if key_name is None else key_name
    keypair = session.get(KeyPair, (row.project, wanted)) if wanted else None
    return {keypair.name: keypair.public_key} if keypair else {}


def _ports(session: Session, row: Server) -> Sequence[tuple[Port, Network]]:
    query = select(Port, Network).join(Network).where(Port.server_id == row.id).order_by(col(Port.position))
    found: Sequence[tuple[Port, Network]] = session.exec(query).all()
    return found


def _work(session: Session, volume_id: str) -> VolumeWork:
    volume = session.get(Volume, volume_id)
    host = session.get(Host, volume.host_id) if volume is not None and volume.host_id else None
    if host is None:
        raise Unavailable(f"volume {volume_id} is on no host", field="volume", value=volume_id)
    return VolumeWork(volume_id=volume_id, host=HostRef(id=host.id, name=host.name))
