"""The weighers: the order of the hosts that passed the filters."""

import heapq
import random

from scheduler.host_state import HostState


def free_ram(host: HostState) -> int:
    """More free memory is better, as in Nova by default: it spreads the load."""
    return host.free_ram_mib


def best(hosts: list[HostState], count: int, spread: int, rng: random.Random) -> list[HostState]:
    """The best `count` hosts, the first to be taken first.

    The first is drawn from the best `spread` and all that equal the last of these. Otherwise schedulers that look at
    the same moment would all choose the same host, and in an empty cloud always the same few.
    """
    if not hosts:
        return []
    leaders = heapq.nlargest(max(spread, count), hosts, key=free_ram)
    bar = free_ram(leaders[:spread][-1])
    equals = [host for host in hosts if free_ram(host) >= bar]
    drawn = rng.sample(equals, min(count, len(equals)))
    others = [host for host in leaders if free_ram(host) < bar]
    return (drawn + others)[:count]
