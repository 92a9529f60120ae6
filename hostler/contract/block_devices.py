"""Which block device mappings are legal, alone and together: Nova's rules, for the types that Hostler knows."""

from collections.abc import Sequence

from hostler.contract.checks import check_number, check_uuid, reject
from hostler.contract.servers import BlockDeviceMapping, DestinationType, SourceType

SWAP = "swap"
FIELD = "block_device_mapping"

_COMBINATIONS = {
    (SourceType.IMAGE, DestinationType.LOCAL),
    (SourceType.IMAGE, DestinationType.VOLUME),
    (SourceType.VOLUME, DestinationType.VOLUME),
    (SourceType.BLANK, DestinationType.LOCAL),
    (SourceType.BLANK, DestinationType.VOLUME),
}


def check_mappings(image: str | None, mappings: Sequence[BlockDeviceMapping]) -> None:
    """Check a boot request's block devices.

    Raises:
        InvalidRequest: one of them is illegal, they contradict one another or `image`, or nothing is left to boot from.
    """
    for index, mapping in enumerate(mappings):
        _check_one(f"{FIELD}[{index}]", mapping)
    _check_boot_order(mappings)
    _check_root(image, mappings)
    volumes = [m.uuid for m in mappings if m.source_type == SourceType.VOLUME]
    for volume in volumes:
        if volumes.count(volume) > 1:
            reject(FIELD, volume, "attaches the same volume more than once", "name it once")
    if sum(m.guest_format == SWAP for m in mappings) > 1:
        reject(FIELD, SWAP, "has more than one swap disk", "leave one")


def _check_one(field: str, mapping: BlockDeviceMapping) -> None:
    for name, value, known in (
        ("source_type", mapping.source_type, SourceType),
        ("destination_type", mapping.destination_type, DestinationType),
    ):
        if value not in set(known):
            reject(f"{field}.{name}", value, f"is unknown; known are {', '.join(known)}", "use one of these")
    if (mapping.source_type, mapping.destination_type) not in _COMBINATIONS:
        reject(
            field,
            f"{mapping.source_type} to {mapping.destination_type}",
            "a volume stays a volume",
            "use volume to volume",
        )
    if mapping.volume_size is not None:
        check_number(f"{field}.volume_size", mapping.volume_size, minimum=1)
    if mapping.source_type == SourceType.BLANK:
        _check_blank(field, mapping)
    else:
        check_uuid(f"{field}.uuid", mapping.uuid)
        if mapping.guest_format is not None:
            reject(f"{field}.guest_format", mapping.guest_format, "is only for blank local disks", "leave it out")
    needs_size = mapping.destination_type == DestinationType.VOLUME and mapping.source_type != SourceType.VOLUME
    if needs_size and mapping.volume_size is None:
        reject(f"{field}.volume_size", None, "is needed for a new volume", "give the volume's size in GiB")
    local_image = (mapping.source_type, mapping.destination_type) == (SourceType.IMAGE, DestinationType.LOCAL)
    if local_image and mapping.boot_index != 0:
        reject(
            f"{field}.boot_index",
            mapping.boot_index,
            "must be 0 for an image on a local disk",
            "make it 0, or a volume of it",
        )


def _check_blank(field: str, mapping: BlockDeviceMapping) -> None:
    if mapping.uuid is not None:
        reject(f"{field}.uuid", mapping.uuid, "has no meaning for a blank device", "leave it out")
    if mapping.boot_index is not None and mapping.boot_index >= 0:
        reject(f"{field}.boot_index", mapping.boot_index, "a blank device holds nothing to boot from", "leave it out")
    if mapping.guest_format is None:
        return
    if mapping.destination_type != DestinationType.LOCAL:
        reject(f"{field}.guest_format", mapping.guest_format, "is only for blank local disks", "leave it out")
    # Hosts make no file systems: to accept a format that the guest would not find would be a lie.
    if mapping.guest_format != SWAP:
        reject(
            f"{field}.guest_format", mapping.guest_format, "is unknown; known is swap", "format the disk in the guest"
        )


def _check_boot_order(mappings: Sequence[BlockDeviceMapping]) -> None:
    order = sorted(m.boot_index for m in mappings if m.boot_index is not None and m.boot_index >= 0)
    if order != list(range(len(order))):
        reject(f"{FIELD}.boot_index", order, "must count up from 0, each number once", "number them so")


def _check_root(image: str | None, mappings: Sequence[BlockDeviceMapping]) -> None:
    root = next((m for m in mappings if m.boot_index == 0), None)
    if root is None and image is None:
        reject("image", None, "there is nothing to boot from", "give an image, or a block device with boot_index 0")
    if root is None or image is None:
        return
    # Nova's own clients name the image twice when its root disk is local.
    if root.source_type == SourceType.IMAGE and root.destination_type == DestinationType.LOCAL:
        if root.uuid == image:
            return
        reject("image", image, "is not the image of the block device with boot_index 0", "give one of the two")
    reject("image", image, "the block device with boot_index 0 is a root disk too", "give one of the two")
