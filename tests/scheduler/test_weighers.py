"""Hosts come in the order of their free memory, equals in any order."""

import random

from scheduler.weighers import best_first
from tests.scheduler.hosts import a_state


def test_more_free_memory_comes_first() -> None:
    hosts = [a_state(str(free), free_ram_mib=free) for free in (2, 9, 4, 7)]
    assert [host.name for host in best_first(hosts, random.Random())] == ["9", "7", "4", "2"]


def test_each_host_comes_once() -> None:
    hosts = [a_state(str(number), free_ram_mib=number % 3) for number in range(100)]
    assert sorted(map(id, best_first(hosts, random.Random()))) == sorted(map(id, hosts))


def test_chance_decides_among_equals() -> None:
    hosts = [a_state(str(number)) for number in range(10)]
    firsts = {next(best_first(hosts, random.Random(seed))).name for seed in range(200)}
    assert len(firsts) == 10
