"""The lab's network: a bridge of this machine, and a cable to each host."""

import ipaddress
import json
import subprocess
from pathlib import Path

from deploy.lab.site import Refused, Site

MTU = 1600
"""Guests' packets of 1500 bytes fit, with the 50 of VXLAN."""


def refuse_taken(site: Site) -> None:
    """See that nobody else has the lab's addresses.

    Raises:
        Refused: the machine reaches some of them elsewhere.
    """
    for route in json.loads(ip("-json", "-4", "route")):
        taken = route["dst"] != "default" and ipaddress.IPv4Network(route["dst"]).overlaps(site.subnet)
        if taken and route.get("dev") != site.name:
            raise Refused(
                f"this machine reaches {route['dst']} by {route.get('dev')}, and the lab is to be {site.subnet}",
                "give the lab another one: --subnet",
            )


def ensure_bridge(site: Site) -> None:
    """Make sure that the bridge is there, with the machine's address."""
    if not exists(site.name):
        # No snooping: nobody here asks who listens to a multicast group, so all may.
        # An address of its own: else it has that of one of its cables, and another one when that host is switched off.
        # Those who know the machine by the former one would not reach it then, for half a minute.
        kind = ["type", "bridge", "mcast_snooping", "0", "forward_delay", "0"]
        ip("link", "add", site.name, "address", mac(site), "mtu", str(MTU), *kind)
        Path(f"/proc/sys/net/ipv6/conf/{site.name}/disable_ipv6").write_text("1")
        ip("address", "add", f"{site.address}/{site.subnet.prefixlen}", "dev", site.name)
    ip("link", "set", site.name, "up")


def plug(site: Site, number: int, namespace_of: int, *, up: bool) -> None:
    """Lay a new cable from the bridge to the eth0 of the host whose first process this is."""
    unplug(site, number)
    name = cable(site, number)
    peer = ["peer", "name", "eth0", "mtu", str(MTU), "netns", str(namespace_of)]
    ip("link", "add", name, "mtu", str(MTU), "type", "veth", *peer)
    ip("link", "set", name, "master", site.name, "up" if up else "down")


def unplug(site: Site, number: int) -> None:
    """Take the cable away, if it is there: the kernel removes that of a host that is off, but not at once."""
    if exists(cable(site, number)):
        subprocess.run(["ip", "link", "del", cable(site, number)], stderr=subprocess.DEVNULL)


def switch(site: Site, number: int, *, up: bool) -> None:
    """Pull the cable out, or put it back in."""
    ip("link", "set", cable(site, number), "up" if up else "down")


def remove_bridge(site: Site) -> None:
    """Remove the bridge, if it is there."""
    if exists(site.name):
        ip("link", "del", site.name)


def cable(site: Site, number: int) -> str:
    """This machine's end of the host's cable."""
    return f"{site.name}-{number}"


def mac(site: Site) -> str:
    """The address of the machine's end of the network: locally administered, and the same every time."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in site.address.packed)


def exists(interface: str) -> bool:
    """Whether this machine has the interface."""
    return Path("/sys/class/net", interface).exists()


def ip(*arguments: str) -> str:
    """What `ip` says."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"`ip {' '.join(arguments)}` fails: {done.stderr.strip()}", "see what is in its way: ip addr")
    return done.stdout
