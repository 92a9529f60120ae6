"""Routing and NAT for the networks of this host, by nftables.

Each owner, of which a machine may have several, has a table, and touches no other. It is always written as a whole, in
one transaction: it is then what it should be, whatever it was. Its names: `bridges` are those of the networks, `within`
are the frames that a bridge forwards between its own ports, which pass here where br_netfilter is on.

Networks are closed to each other and to the outside, except for answers; guests reach of their host only what serves
them: DHCP and ping. Where there is an overlay, no guest may speak VXLAN to a host: NAT would give it our address, and
it could send into any network.
"""

from collections.abc import Collection
from ipaddress import IPv4Network

from drivers.network.nftables import replacing

VXLAN_PORT = 4789
RULES = """
table %(table)s {
    set bridges { type ifname; elements = { %(bridges)s } }
    set within { type ifname . ifname; elements = { %(within)s } }
    set subnets { type ipv4_addr; flags interval; elements = { %(subnets)s } }

    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname . oifname @within accept
        %(closed)s
        oifname @bridges ct state established,related accept
        oifname @bridges drop
    }
    chain input {
        type filter hook input priority filter; policy accept;
        iifname != @bridges accept
        ct state established,related accept
        udp dport 67 accept
        icmp type echo-request accept
        drop
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != @bridges ip saddr @subnets masquerade
    }
}
"""


def table(owner: str) -> str:
    """The table of the host whose UUID is `owner`."""
    return f"inet hostler-{owner[:8]}"


def script(owner: str, networks: Collection[tuple[str, IPv4Network]], *, overlay: bool) -> str:
    """Routes and translates for these networks, each a bridge's name with its subnet, and for no others of the owner.

    `overlay`: whether hosts take VXLAN from each other.
    """
    networks = sorted(networks)
    names = {
        "table": table(owner),
        "bridges": ", ".join(f'"{bridge}"' for bridge, _ in networks),
        "within": ", ".join(f'"{bridge}" . "{bridge}"' for bridge, _ in networks),
        "subnets": ", ".join(str(subnet) for _, subnet in networks),
        "closed": f"iifname @bridges udp dport {VXLAN_PORT} drop" if overlay else "",
    }
    return replacing(table(owner), RULES % names if networks else "")
