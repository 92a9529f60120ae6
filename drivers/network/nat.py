"""Routing and NAT for the networks of this host, by nftables. All calls block.

Each owner, of which a machine may have several, has a table, and touches no other. It is always written as a whole, in
one transaction: it is then what it should be, whatever it was. Its names: `bridges` are those of the networks, `within`
are the frames that a bridge forwards between its own ports, which pass here where br_netfilter is on.

Networks are closed to each other and to the outside, except for answers; guests reach of their host only what serves
them: DHCP and ping.
"""

import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network

from drivers.environment import clean
from hostler.contract.errors import RescheduleError

TIMEOUT_SECONDS = 30

# Adding the table before deleting it: deleting one that is not there is an error.
REMOVE = "add table %(table)s\ndelete table %(table)s\n"
RULES = """
table %(table)s {
    set bridges { type ifname; elements = { %(bridges)s } }
    set within { type ifname . ifname; elements = { %(within)s } }
    set subnets { type ipv4_addr; flags interval; elements = { %(subnets)s } }

    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname . oifname @within accept
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


def apply(owner: str, networks: Iterable[tuple[str, IPv4Network]]) -> None:
    """Route and translate for these networks, each a bridge's name with its subnet, and for no others of the owner.

    Raises:
        RescheduleError: nftables refuses.
    """
    networks = sorted(networks)
    script = REMOVE + (RULES if networks else "")
    names = {
        "table": table(owner),
        "bridges": ", ".join(f'"{bridge}"' for bridge, _ in networks),
        "within": ", ".join(f'"{bridge}" . "{bridge}"' for bridge, _ in networks),
        "subnets": ", ".join(str(subnet) for _, subnet in networks),
    }
    _nft(script % names)


def _nft(script: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=clean()
        )
    except FileNotFoundError as error:
        raise RescheduleError("nft is not installed on this host", remedy="install the package nftables") from error
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or ["no reason given"]
        raise RescheduleError(
            f"nftables refuses the rules of this host's networks: {complaint[0]}",
            remedy="the worker needs CAP_NET_ADMIN and a kernel with nf_tables and NAT",
        )
