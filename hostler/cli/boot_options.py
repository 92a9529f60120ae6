"""The networks and block devices of `server create`, in the openstack client's notation."""

from hostler.cli.pairs import number, pairs, truth
from hostler.client import Client
from hostler.contract.block_devices import SWAP
from hostler.contract.names import is_uuid
from hostler.contract.servers import BlockDeviceMapping, DestinationType, NetworkRequest, SourceType

NETWORK_KEYS = {
    "net": "network",
    "net-id": "network",
    "net-name": "network",
    "ip": "fixed_ip",
    "v4-fixed-ip": "fixed_ip",
}
DEVICE_KEYS = {
    key: key
    for key in (
        "uuid",
        "source_type",
        "destination_type",
        "boot_index",
        "volume_size",
        "guest_format",
        "delete_on_termination",
    )
}


def network(value: str) -> NetworkRequest:
    """`NAME`, or `net=NAME,ip=ADDRESS`."""
    return NetworkRequest.model_validate({"network": "", **pairs("--network", value, NETWORK_KEYS, bare="network")})


def block_device(value: str) -> BlockDeviceMapping:
    """`uuid=...,source_type=...`: a volume if there is a UUID and else blank; a volume stays one, all else is local."""
    option = "--block-device"
    given = pairs(option, value, DEVICE_KEYS)
    source = given.get("source_type", SourceType.VOLUME if "uuid" in given else SourceType.BLANK)
    local = DestinationType.VOLUME if source == SourceType.VOLUME else DestinationType.LOCAL
    return BlockDeviceMapping(
        source_type=source,
        destination_type=given.get("destination_type", local),
        uuid=given.get("uuid"),
        boot_index=_number(option, given, "boot_index"),
        volume_size=_number(option, given, "volume_size"),
        guest_format=given.get("guest_format"),
        delete_on_termination=truth(option, "delete_on_termination", given.get("delete_on_termination", "false")),
    )


def ephemeral(value: str) -> BlockDeviceMapping:
    """`GIB`, or `size=GIB`."""
    option = "--ephemeral"
    return _local(_number(option, pairs(option, value, {"size": "size"}, bare="size"), "size"))


def swap(size_mib: int) -> BlockDeviceMapping:
    """Swap of that size, in MiB as everywhere in Nova."""
    return _local(size_mib, SWAP)


def _local(size: int | None, guest_format: str | None = None) -> BlockDeviceMapping:
    return BlockDeviceMapping(
        source_type=SourceType.BLANK,
        destination_type=DestinationType.LOCAL,
        volume_size=size,
        guest_format=guest_format,
        delete_on_termination=True,
    )


def _number(option: str, given: dict[str, str], key: str) -> int | None:
    return number(option, key, given[key]) if key in given else None


async def with_ids(client: Client, device: BlockDeviceMapping) -> BlockDeviceMapping:
    """The device with its image or volume named by UUID, as the contract wants it."""
    if device.uuid is None or is_uuid(device.uuid):
        return device
    named = await (client.images if device.source_type == SourceType.IMAGE else client.volumes).show(device.uuid)
    return device.model_copy(update={"uuid": named.id})


def boot_volume(volume: str) -> BlockDeviceMapping:
    """Boot from a volume that exists."""
    return BlockDeviceMapping(
        source_type=SourceType.VOLUME, destination_type=DestinationType.VOLUME, uuid=volume, boot_index=0
    )


def new_boot_volume(image: str, size_gib: int) -> BlockDeviceMapping:
    """Boot from a new volume with the image's content; it outlives the server, as the openstack client has it."""
    return BlockDeviceMapping(
        source_type=SourceType.IMAGE,
        destination_type=DestinationType.VOLUME,
        uuid=image,
        boot_index=0,
        volume_size=size_gib,
    )
