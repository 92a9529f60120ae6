"""The config drive: a small ISO 9660 image with all that a guest may know of itself.

Format: OpenStack's, read by cloud-init and its like from `openstack/latest/` on a volume with the label config-2.
Source: "Metadata" in Nova's user guide, nova/api/metadata/base.py, nova/virt/netutils.py; of `vendor_data.json`
cloudinit/sources/__init__.py and cloudinit/config/cc_set_passwords.py.
"""

import base64
import binascii
import json
import re
from io import BytesIO
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pycdlib

from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import GuestSpec, PortBinding
from hostler.contract.names import tap_name

VOLUME_ID = "config-2"
FOLDER = "openstack/latest"
PRIVATE = 0o600
HOSTNAME_LENGTH = 63  # RFC 1035
ISO_9660_LEVEL = 3  # names of more than eight characters, below the true ones of Rock Ridge and Joliet


def write_config_drive(guest: GuestSpec, path: Path) -> None:
    """Write the guest's config drive to `path`, over what is there.

    Raises:
        InvalidRequest: the user data is no base64.
        RescheduleError: the file cannot be written.
    """
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=ISO_9660_LEVEL, vol_ident=VOLUME_ID, joliet=3, rock_ridge="1.09")
    folder = ""
    for name in FOLDER.split("/"):
        folder += f"/{name}"
        iso.add_directory(folder.upper(), rr_name=name, joliet_path=folder)
    for name, content in documents(guest).items():
        place = f"{folder}/{name}"
        iso_name = f"{place.upper()}{'' if '.' in name else '.'};1"
        iso.add_fp(BytesIO(content), len(content), iso_name, rr_name=name, joliet_path=place)
    try:
        path.touch(PRIVATE)  # the user data may hold passwords
        iso.write(str(path))
    except OSError as error:
        raise RescheduleError(f"cannot write the config drive: {error}") from error
    finally:
        iso.close()


def documents(guest: GuestSpec) -> dict[str, bytes]:
    """The files of `openstack/latest`, by name."""
    files = {
        "meta_data.json": _json(meta_data(guest)),
        "network_data.json": _json(network_data(guest.ports)),
        "vendor_data.json": _json(vendor_data(guest)),
    }
    if guest.user_data is not None:
        try:
            files["user_data"] = base64.b64decode(guest.user_data, validate=True)
        except binascii.Error as error:
            raise InvalidRequest("user_data is not base64", field="user_data") from error
    return files


def meta_data(guest: GuestSpec) -> dict[str, Any]:
    """`meta_data.json`. As Nova's, with a password only where one was set."""
    password = {} if guest.admin_password is None else {"admin_pass": guest.admin_password}
    return {
        "uuid": guest.server_id,
        "name": guest.name,
        "hostname": hostname(guest),
        "availability_zone": guest.availability_zone,
        "project_id": guest.project,
        "launch_index": 0,
        "meta": guest.metadata,
        "public_keys": guest.public_keys,
        "keys": [{"name": name, "type": "ssh", "data": key} for name, key in guest.public_keys.items()],
        "devices": [],
        **password,
    }


def vendor_data(guest: GuestSpec) -> dict[str, Any]:
    """`vendor_data.json`. cloud-init does not look at `admin_pass`, and sets a password for its default user by this.

    User data that say otherwise have precedence. Whether a password will do for SSH is left to the image and to them.
    """
    if guest.admin_password is None:
        return {}
    config = {"password": guest.admin_password, "chpasswd": {"expire": False}}
    # JSON is YAML but for its escapes of what is beyond the basic plane: YAML takes them for two characters.
    return {"cloud-init": f"#cloud-config\n{json.dumps(config, ensure_ascii=False)}\n"}


def network_data(ports: list[PortBinding]) -> dict[str, Any]:
    """`network_data.json`: fixed addresses, so that a guest has its own without waiting for DHCP."""
    return {
        "links": [
            {
                "id": tap_name(port.port_id),
                "vif_id": port.port_id,
                "type": "bridge",
                "mtu": port.mtu,
                "ethernet_mac_address": port.mac,
            }
            for port in ports
        ],
        "networks": [
            {
                "id": f"network{index}",
                "type": "ipv4",
                "link": tap_name(port.port_id),
                "ip_address": port.ip,
                "netmask": str(IPv4Network((0, port.prefix)).netmask),
                "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": port.gateway}],
                "network_id": port.network_id,
                "services": _dns(port),
            }
            for index, port in enumerate(ports)
        ],
        "services": [service for port in ports for service in _dns(port)],
    }


def hostname(guest: GuestSpec) -> str:
    """The guest's host name: what its network calls it, else its name without what a host name may not have."""
    for port in guest.ports:
        if port.hostname:
            return port.hostname
    name = re.sub(r"[ _]", "-", guest.name.encode("ascii", "ignore").decode())
    name = re.sub(r"[^A-Za-z0-9.-]", "", name).lower()[:HOSTNAME_LENGTH].strip(".-")
    return name or f"server-{guest.server_id}"


def _dns(port: PortBinding) -> list[dict[str, str]]:
    return [{"type": "dns", "address": address} for address in port.dns]


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
