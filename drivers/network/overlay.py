"""The overlay: a VXLAN device, one more port of a network's bridge, joins it to its like on other hosts. Calls block.

Frames for guests elsewhere go to the host that the kernel has learned them to be on; those for everybody go to a
multicast group that all hosts of the cloud are in. Two clouds in one underlay need two groups.

Each host is the gateway and the DHCP server of its own guests, under one address and one MAC. So a fence of nftables
rules on these ports lets neither through, nor a guest that pretends to be the gateway. It is up before the device is.
"""

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from drivers.network.bridge import disable_ipv6, gateway_mac
from drivers.network.nat import VXLAN_PORT
from drivers.network.nftables import replacing
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name

HEADERS_BYTES = 50
"""What VXLAN puts before a guest's packet: Ethernet 14, IPv4 20, UDP 8, VXLAN 8."""
PREFIX = "vxh"
IFF_UP = 1
FENCE = """
table %(table)s {
    set overlays { type ifname; elements = { %(overlays)s } }
    set macs { type ifname . ether_addr; elements = { %(macs)s } }
    set gateways { type ifname . ipv4_addr; elements = { %(gateways)s } }

    chain in {
        type filter hook prerouting priority filter; policy accept;
        iifname . ether saddr @macs drop
        iifname . arp saddr ip @gateways drop
        iifname . arp daddr ip @gateways drop
        iifname @overlays udp dport { 67, 68 } drop
    }
    chain out {
        type filter hook postrouting priority filter; policy accept;
        oifname . ether saddr @macs drop
        oifname . arp saddr ip @gateways drop
        oifname . arp daddr ip @gateways drop
        oifname @overlays udp dport { 67, 68 } drop
    }
}
"""


@dataclass(frozen=True)
class Underlay:
    """What carries the overlay: this host's address in it, and the multicast group of the cloud."""

    address: str
    group: str


def overlay_name(network_id: str) -> str:
    """The VXLAN device of a network, the same on every host."""
    return f"{PREFIX}{network_id[:11]}"


def connect(port: PortBinding, underlay: Underlay, owner: str) -> None:
    """Make sure that the bridge of the port's network, which has a VNI, is connected with its like on other hosts.

    Raises:
        RescheduleError: this host is not in the underlay, or it carries no packets as large as the network's.
    """
    try:
        with IPRoute() as netlink:
            carrier = _carrier(netlink, underlay.address)
            _refuse_mtu(port, carrier)
            _make(netlink, port, underlay, carrier["index"], owner)
    except (NetlinkError, OSError) as error:
        if isinstance(error, NetlinkError) and error.code == errno.EEXIST:
            raise RescheduleError(
                f"VNI {port.vni} of network {port.network} is in use on this host for something else",
                remedy="find it, and remove it if nobody needs it: ip -d link show type vxlan",
            ) from error
        raise RescheduleError(
            f"the overlay of network {port.network} cannot be made: {error}",
            remedy="the worker needs CAP_NET_ADMIN, the kernel vxlan, and host.overlay_group a multicast address",
        ) from error


def disconnect(network_id: str) -> None:
    """Remove the network's VXLAN device, if it is there."""
    try:
        index = socket.if_nametoindex(overlay_name(network_id))
    except OSError:
        return
    with IPRoute() as netlink:
        _delete(netlink, index)


def devices(owner: str) -> list[str]:
    """The names of this owner's VXLAN devices."""
    with IPRoute() as netlink:
        links = [link for link in netlink.get_links() if link.get_attr("IFLA_IFALIAS") == _alias(owner)]
    return sorted(name for link in links if (name := str(link.get_attr("IFLA_IFNAME"))).startswith(PREFIX))


def table(owner: str) -> str:
    """The table of the fence of the host whose UUID is `owner`."""
    return f"bridge hostler-{owner[:8]}"


def fence(owner: str, ports: Collection[PortBinding]) -> str:
    """The script that fences the overlay's devices for the networks of these ports, and no others of the owner."""
    names = sorted((overlay_name(port.network_id), gateway_mac(port.network_id), port.gateway) for port in ports)
    values = {
        "table": table(owner),
        "overlays": ", ".join(f'"{name}"' for name, _, _ in names),
        "macs": ", ".join(f'"{name}" . {mac}' for name, mac, _ in names),
        "gateways": ", ".join(f'"{name}" . {gateway}' for name, _, gateway in names),
    }
    return replacing(table(owner), FENCE % values if names else "")


def _carrier(netlink: IPRoute, address: str) -> Any:
    """The interface that has the underlay's address."""
    for message in netlink.get_addr(family=socket.AF_INET):
        if message.get_attr("IFA_LOCAL") == address:
            [link] = netlink.get_links(message["index"])
            return link
    raise RescheduleError(
        f"no interface of this host has the overlay's address {address}",
        remedy="see that the interface is there, or correct host.overlay_address",
    )


def _refuse_mtu(port: PortBinding, carrier: Any) -> None:
    name, carried = carrier.get_attr("IFLA_IFNAME"), carrier.get_attr("IFLA_MTU") - HEADERS_BYTES
    if port.mtu > carried:
        raise RescheduleError(
            f"network {port.network} has packets of {port.mtu} bytes, and the overlay over {name} carries {carried}",
            remedy=f"raise the MTU of {name} to {port.mtu + HEADERS_BYTES} on all hosts, "
            f"or use a network that was made with --mtu {carried}",
        )


def _make(netlink: IPRoute, port: PortBinding, underlay: Underlay, carrier: int, owner: str) -> None:
    name = overlay_name(port.network_id)
    wanted = {
        "vxlan_id": port.vni,
        "vxlan_link": carrier,
        "vxlan_local": underlay.address,
        "vxlan_group": underlay.group,
        "vxlan_port": VXLAN_PORT,
    }
    [bridge] = netlink.link_lookup(ifname=bridge_name(port.network_id))
    for link in netlink.get_links(ifname=name):
        if _settings(link, wanted) != wanted:  # most of it cannot be changed
            _delete(netlink, link["index"])
        elif link["flags"] & IFF_UP and (link.get_attr("IFLA_MASTER"), link.get_attr("IFLA_MTU")) == (bridge, port.mtu):
            return
    if not netlink.link_lookup(ifname=name):
        netlink.link("add", ifname=name, kind="vxlan", **wanted)
    [index] = netlink.link_lookup(ifname=name)
    disable_ipv6(name)
    netlink.link("set", index=index, ifalias=_alias(owner), mtu=port.mtu, master=bridge, state="up")


def _settings(link: Any, names: Collection[str]) -> dict[str, Any]:
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    return {name: data.get_attr(f"IFLA_{name.upper()}") if data else None for name in names}


def _alias(owner: str) -> str:
    return f"hostler {owner}"


def _delete(netlink: IPRoute, index: int) -> None:
    try:
        netlink.link("del", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
