"""Turns a request's image, flavor and block device mappings into the server's disks, as Nova's API does."""

from uuid import NAMESPACE_URL, uuid5

from sqlmodel import Session

from activities.control.find import find
from activities.control.views import image_ref
from hostler.contract import resources
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.guests import DiskKind, GuestDisk
from hostler.contract.resources import ImageStatus, VolumeStatus
from hostler.contract.servers import BlockDeviceMapping, BootRequest, DestinationType, SourceType
from models import Flavor, Image, Volume

GIB = 2**30
MIB = 2**20


def plan_disks(session: Session, request: BootRequest, flavor: Flavor) -> list[GuestDisk]:
    """All of the server's disks, the root disk first, with their devices.

    Raises:
        NotFound, InvalidRequest, Conflict: an image or volume is not there, not ready or does not fit.
    """
    mappings = list(request.block_device_mapping)
    if not any(mapping.boot_index == 0 for mapping in mappings):
        mappings.insert(0, BlockDeviceMapping(source_type="image", destination_type="local", boot_index=0))
    disks = [_disk(session, request, flavor, mapping, number) for number, mapping in enumerate(mappings)]
    if flavor.ephemeral_gib and not any(disk.kind is DiskKind.EPHEMERAL for disk in disks):
        disks.append(_blank(DiskKind.EPHEMERAL, flavor.ephemeral_gib * GIB))
    if flavor.swap_mib and not any(disk.kind is DiskKind.SWAP for disk in disks):
        disks.append(_blank(DiskKind.SWAP, flavor.swap_mib * MIB))
    _check_local_sizes(flavor, disks)
    order = list(DiskKind)
    disks.sort(key=lambda disk: order.index(disk.kind))
    return [disk.model_copy(update={"device": _device(number)}) for number, disk in enumerate(disks)]


def check_fits(image: Image, disk_gib: int, field: str) -> None:
    """The image is usable, and a disk of this size (0: as large as the image) holds it.

    Raises:
        Conflict: it is still being imported.
        InvalidRequest: the disk is too small for it; `field` is what made it so.
    """
    if image.status is not ImageStatus.ACTIVE:
        raise Conflict(
            f"image {image.name} is {image.status}, not active",
            field="image",
            value=image.name,
            remedy="wait until it is imported: hostler image list",
        )
    needed = max(image.min_disk_gib * GIB, image.virtual_size_bytes)
    if disk_gib and disk_gib * GIB < needed:
        raise InvalidRequest(
            f"a disk of {disk_gib} GiB is too small for image {image.name}, which needs {needed / GIB:.1f} GiB",
            field=field,
            value=disk_gib,
            remedy="choose a flavor, or a volume size, with a larger disk",
        )


def check_ram(image: Image, flavor: Flavor | resources.Flavor) -> None:
    """The flavor has the memory that the image asks for.

    Raises:
        InvalidRequest: it has less.
    """
    if flavor.ram_mib < image.min_ram_mib:
        raise InvalidRequest(
            f"flavor {flavor.name} has {flavor.ram_mib} MiB of RAM, image {image.name} needs {image.min_ram_mib} MiB",
            field="flavor",
            value=flavor.name,
            remedy="choose a larger flavor: hostler flavor list",
        )


def _disk(
    session: Session, request: BootRequest, flavor: Flavor, mapping: BlockDeviceMapping, number: int
) -> GuestDisk:
    if mapping.destination_type == DestinationType.VOLUME:
        return _volume(session, request, flavor, mapping, number)
    if mapping.source_type == SourceType.IMAGE:
        return _root_from_image(session, request, flavor, mapping)
    if mapping.guest_format == "swap":
        return _blank(DiskKind.SWAP, (mapping.volume_size or flavor.swap_mib) * MIB, mapping)
    return _blank(DiskKind.EPHEMERAL, (mapping.volume_size or flavor.ephemeral_gib) * GIB, mapping)


def _root_from_image(session: Session, request: BootRequest, flavor: Flavor, mapping: BlockDeviceMapping) -> GuestDisk:
    image = find(session, Image, mapping.uuid or request.image or "", request.project)
    check_fits(image, flavor.disk_gib, "flavor")
    check_ram(image, flavor)
    return GuestDisk(
        kind=DiskKind.ROOT,
        device="",
        size_bytes=flavor.disk_gib * GIB or image.virtual_size_bytes,
        bootable=True,
        image=image_ref(image),
    )


def _volume(
    session: Session, request: BootRequest, flavor: Flavor, mapping: BlockDeviceMapping, number: int
) -> GuestDisk:
    root = mapping.boot_index == 0
    disk = GuestDisk(
        kind=DiskKind.ROOT if root else DiskKind.DATA,
        device="",
        size_bytes=(mapping.volume_size or 0) * GIB,
        bootable=root,
        delete_on_termination=mapping.delete_on_termination,
    )
    if mapping.source_type == SourceType.VOLUME:
        volume = find(session, Volume, mapping.uuid or "", request.project)
        if volume.status is not VolumeStatus.AVAILABLE:
            user = f", used by server {volume.server_id}" if volume.server_id else ""
            raise Conflict(
                f"volume {volume.id} is {volume.status}{user}",
                field="block_device_mapping",
                value=mapping.uuid,
                remedy="name a volume that is available: hostler volume list",
            )
        return disk.model_copy(update={"volume_id": volume.id, "size_bytes": volume.size_gib * GIB})
    disk.volume_id = str(uuid5(NAMESPACE_URL, f"{request.server_id}/volume/{number}"))
    disk.create = True
    if mapping.source_type == SourceType.IMAGE:
        image = find(session, Image, mapping.uuid or request.image or "", request.project)
        check_fits(image, mapping.volume_size or 0, "volume_size")
        check_ram(image, flavor)
        disk.image = image_ref(image)
    return disk


def _blank(kind: DiskKind, size_bytes: int, mapping: BlockDeviceMapping | None = None) -> GuestDisk:
    if size_bytes == 0:
        raise InvalidRequest(
            f"the flavor has no {kind} space",
            field="block_device_mapping",
            value=kind,
            remedy=f"choose a flavor with {kind} space",
        )
    return GuestDisk(
        kind=kind, device="", size_bytes=size_bytes, guest_format=mapping.guest_format if mapping else None
    )


def _check_local_sizes(flavor: Flavor, disks: list[GuestDisk]) -> None:
    limits = {DiskKind.EPHEMERAL: flavor.ephemeral_gib * GIB, DiskKind.SWAP: flavor.swap_mib * MIB}
    for kind, limit in limits.items():
        wanted = sum(disk.size_bytes for disk in disks if disk.kind is kind)
        if wanted > limit:
            raise InvalidRequest(
                f"{kind} disks of {wanted / MIB:.0f} MiB: flavor {flavor.name} allows {limit / MIB:.0f} MiB",
                field="block_device_mapping",
                value=kind,
                remedy="ask for less, or choose a flavor with more",
            )


def _device(number: int) -> str:
    """vda, vdb, ... vdz; validation keeps the number below 26."""
    return f"vd{chr(ord('a') + number)}"
