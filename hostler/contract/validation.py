"""What is allowed in a request: pure checks that raise `InvalidRequest` with the field, its value and a remedy.

The client runs them early, the control worker with authority. The limits are Nova's, unless a comment says otherwise.
"""

import ipaddress
import re
from pathlib import PurePosixPath

from hostler.contract.block_devices import check_mappings
from hostler.contract.checks import (
    MAX_NAME,
    check_ipv4,
    check_number,
    check_optional_text,
    check_text,
    check_uuid,
    reject,
)
from hostler.contract.evacuation import check_policy
from hostler.contract.operation_checks import check_attempts, check_config_drive, check_options, check_user_data
from hostler.contract.public_keys import fingerprint
from hostler.contract.resources import Aggregate, DiskFormat, Flavor, ImageCreate, KeyPair, Network, Quota, VolumeCreate
from hostler.contract.servers import BootRequest, Choice, Decision, OperationRequest

MAX_METADATA_ITEMS = 128
METADATA_KEY = re.compile(r"[A-Za-z0-9:._ -]+")
KEYPAIR_NAME = re.compile(r"[A-Za-z0-9@._ -]+")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_NOTE = 1000
# Hostler goes by them when it removes backups, so that no request may set them.
MADE_OF_SERVERS = ("image_type", "backup_type", "instance_uuid")
# Every IPv4 host takes 576 bytes (RFC 791); above 9000 few switches follow.
MTU = (576, 9000)
# A subnet has a network, a broadcast, a gateway and a DHCP address before the first guest's.
PREFIX = (8, 29)


def check_operation(request: OperationRequest) -> None:
    """An operation's request, as far as it can be checked without the cloud; a boot's needs `check_boot`."""
    check_uuid("server_id", request.server_id)
    check_text("request_id", request.request_id)
    check_text("project", request.project)
    check_options(request)


def check_decision(decision: Decision) -> None:
    """A decision, as far as it can be checked without the operation that it is about."""
    check_signature(decision.by, decision.note)
    check_optional_text("host", decision.host)
    if decision.host is not None and decision.choice is not Choice.MOVE:
        reject("host", decision.host, f"cannot be given with {decision.choice}", "leave it out, or decide to move")


def check_signature(by: str, note: str) -> None:
    """Who decided something, and why."""
    if not by:
        reject("by", by, "is empty", "say who decides: it is in the server's events for whoever reads them later")
    check_text("by", by)
    check_text("note", note, minimum=0, maximum=MAX_NOTE)


def check_boot(request: BootRequest) -> None:
    """A boot request, as far as it can be checked without the cloud."""
    check_operation(request)
    check_text("name", request.name)
    check_text("flavor", request.flavor)
    for field in ("image", "key_name", "availability_zone", "host"):
        check_optional_text(field, getattr(request, field))
    for index, wanted in enumerate(request.networks):
        check_text(f"networks[{index}].network", wanted.network)
        if wanted.fixed_ip is not None:
            check_ipv4(f"networks[{index}].fixed_ip", wanted.fixed_ip)
    check_mappings(request.image, request.block_device_mapping)
    check_user_data(request.user_data)
    check_config_drive(request.config_drive, key_name=request.key_name, user_data=request.user_data)
    check_metadata(request.metadata)
    check_attempts(request.max_attempts)


def check_metadata(metadata: dict[str, str], total: int | None = None) -> None:
    """A server's properties, or an aggregate's: all of them, or those that are set, with which it has `total`."""
    count = len(metadata) if total is None else total
    if count > MAX_METADATA_ITEMS:
        reject("metadata", f"{count} items", f"has more than {MAX_METADATA_ITEMS} items", "leave some out")
    for key, value in metadata.items():
        if len(key) > MAX_NAME or not METADATA_KEY.fullmatch(key):
            reject(
                "metadata",
                key,
                f"a key has 1 to {MAX_NAME} of the characters A-Z a-z 0-9 : . _ - and blank",
                "rename it",
            )
        if len(value) > MAX_NAME:
            reject(f"metadata[{key}]", value, f"is longer than {MAX_NAME} characters", "shorten it")
    check_policy(metadata)


def check_aggregate(aggregate: Aggregate) -> None:
    """A new aggregate, or one as it is to be."""
    check_uuid("id", aggregate.id)
    check_text("name", aggregate.name)
    check_metadata(aggregate.metadata)


def check_flavor(flavor: Flavor) -> None:
    """A new flavor."""
    check_uuid("id", flavor.id)
    check_text("name", flavor.name)
    check_number("vcpus", flavor.vcpus, minimum=1)
    check_number("ram_mib", flavor.ram_mib, minimum=1)
    for field in ("disk_gib", "ephemeral_gib", "swap_mib"):
        check_number(field, getattr(flavor, field), minimum=0)


def check_network(network: Network) -> None:
    """A new network."""
    check_uuid("id", network.id)
    check_text("name", network.name)
    check_text("project", network.project)
    subnet = _subnet(network.cidr)
    if network.gateway is not None:
        gateway = check_ipv4("gateway", network.gateway)
        if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
            reject("gateway", network.gateway, f"is no host's address in {subnet}", "choose another one, or none")
    for server in network.dns:
        check_ipv4("dns", server)
    check_number("mtu", network.mtu, minimum=MTU[0], maximum=MTU[1])


def _subnet(cidr: str) -> ipaddress.IPv4Network:
    try:
        subnet = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        reject("cidr", cidr, "is not an IPv4 network", "write it like 10.0.0.0/24")
    if str(subnet) != cidr:
        reject("cidr", cidr, "is not a network's own address and prefix length", f"use {subnet}")
    if not PREFIX[0] <= subnet.prefixlen <= PREFIX[1]:
        reject("cidr", cidr, f"its prefix length must be from {PREFIX[0]} to {PREFIX[1]}", "use a /24, say")
    # is_reserved and the others look at the network's both ends only; these four ranges nest, so overlap decides.
    for special in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"):
        if subnet.overlaps(ipaddress.IPv4Network(special)):
            reject("cidr", cidr, f"lies in {special}, which no network can use", "use a range of 10.0.0.0/8, say")
    return subnet


def check_volume(volume: VolumeCreate) -> None:
    """A new volume; it may be nameless."""
    check_uuid("id", volume.id)
    check_text("name", volume.name, minimum=0)
    check_text("project", volume.project)
    check_number("size_gib", volume.size_gib, minimum=1)
    check_optional_text("image", volume.image)


def check_image(image: ImageCreate) -> None:
    """An image's import, before its file is opened."""
    check_uuid("id", image.id)
    check_text("name", image.name)
    check_text("project", image.project)
    if not PurePosixPath(image.path).is_absolute() or "\0" in image.path:
        reject("path", image.path, "is not an absolute path", "give the path as the control worker sees it")
    if image.disk_format not in set(DiskFormat):
        reject(
            "disk_format",
            image.disk_format,
            f"is unknown; known are {', '.join(DiskFormat)}",
            "convert it: qemu-img convert",
        )
    if image.checksum is not None and not SHA256.fullmatch(image.checksum):
        reject("checksum", image.checksum, "is not a SHA-256 in hexadecimal", "use what sha256sum prints")
    check_number("min_disk_gib", image.min_disk_gib, minimum=0)
    check_number("min_ram_mib", image.min_ram_mib, minimum=0)
    for field in ("architecture", "hypervisor_type"):
        check_optional_text(f"properties.{field}", getattr(image.properties, field))
    for field in MADE_OF_SERVERS:
        if (value := getattr(image.properties, field)) is not None:
            reject(f"properties.{field}", value, "is for images that are made of servers", "leave it out")


def check_keypair(keypair: KeyPair) -> None:
    """A new key pair. A fingerprint need not be given; one that is must be the key's."""
    check_text("name", keypair.name)
    check_text("project", keypair.project)
    if not KEYPAIR_NAME.fullmatch(keypair.name):
        reject("name", keypair.name, "has characters other than A-Z a-z 0-9 @ . _ - and blank", "rename it")
    computed = fingerprint(keypair.public_key)
    if keypair.fingerprint not in ("", computed):
        reject("fingerprint", keypair.fingerprint, f"is not the key's, which is {computed}", "leave it out")


def check_quota(quota: Quota) -> None:
    """A project's limits; -1 is none."""
    check_text("project", quota.project)
    for field in ("servers", "vcpus", "ram_mib", "volumes", "volume_gib"):
        check_number(field, getattr(quota, field), minimum=-1)
