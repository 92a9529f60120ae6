"""The weigher: in which order hosts are looked at."""

import random
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

from scheduler.host_state import HostState

# More free memory is better, which spreads the load: Nova's default, too.
weight = attrgetter("free_ram_mib")


def best_first(hosts: list[HostState], rng: random.Random) -> Iterator[HostState]:
    """All hosts, the best first. Among equals chance decides, or in an empty cloud everyone would choose the same."""
    for _, equals in groupby(sorted(hosts, key=weight, reverse=True), key=weight):
        yield from _shuffled(list(equals), rng)


def _shuffled(hosts: list[HostState], rng: random.Random) -> Iterator[HostState]:
    """Like `rng.shuffle`, but drawn as they are taken: of thousands of equals, few will be."""
    for position in range(len(hosts)):
        drawn = rng.randrange(position, len(hosts))
        hosts[position], hosts[drawn] = hosts[drawn], hosts[position]
        yield hosts[position]
