"""The Linux bridge of a network on this host, with the network's gateway address. All calls block."""

import errno
import socket
from contextlib import suppress
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from uuid import UUID

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
NO_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"


def ensure(port: PortBinding) -> bool:
    """Make sure that the bridge of the port's network is there and up; True when it was not there."""
    name = bridge_name(port.network_id)
    with IPRoute() as netlink:
        made = not netlink.link_lookup(ifname=name)
        if made:
            # No spanning tree: its listening and learning would hold a guest's first DHCP request back by 30 s.
            netlink.link(
                "add",
                ifname=name,
                kind="bridge",
                br_stp_state=0,
                br_forward_delay=0,
                address=gateway_mac(port.network_id),
            )
        [index] = netlink.link_lookup(ifname=name)
        disable_ipv6(name)
        netlink.link("set", index=index, mtu=port.mtu, state="up")
        netlink.addr("replace", index=index, address=port.gateway, prefixlen=port.prefix)
    if IP_FORWARD.read_text().strip() != "1":
        IP_FORWARD.write_text("1")
    return made


def remove(network_id: str) -> None:
    """Remove the network's bridge, if it is there."""
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=bridge_name(network_id)):
            try:
                netlink.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise


def gateway_mac(network_id: str) -> str:
    """The gateway's MAC: the same on every host, so that a guest that moves finds it where it was.

    A bridge without one of its own takes the lowest of its ports', which changes as guests come and go.
    """
    return ":".join(["0a", *(f"{byte:02x}" for byte in UUID(network_id).bytes[:5])])


def exists(network_id: str) -> bool:
    """Whether the network's bridge is there."""
    try:
        socket.if_nametoindex(bridge_name(network_id))
    except OSError:
        return False
    return True


def overlapping_interface(subnet: IPv4Network, own: str) -> str | None:
    """An interface other than `own` through which this host already reaches addresses of the subnet."""
    with IPRoute() as netlink:
        for message in netlink.get_addr(family=socket.AF_INET):
            address = IPv4Interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            label = message.get_attr("IFA_LABEL") or str(message["index"])
            if label != own and address.network.overlaps(subnet):
                return str(label)
    return None


def disable_ipv6(name: str) -> None:
    """Keep the interface from having a link-local address, by which guests would reach the host."""
    with suppress(FileNotFoundError):  # a kernel without IPv6
        Path(NO_IPV6.format(name)).write_text("1")
