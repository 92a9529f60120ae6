"""The choice: the best few by chance, then alternates; or the reasons why there is none."""

import random
from typing import Any

from scheduler.host_state import HostState
from scheduler.request import SchedulingRequest
from scheduler.selection import Selection, select
from tests.scheduler.hosts import a_request, a_state, ids

HOSTS = [a_state(str(rank), free_ram_mib=10_000 - rank) for rank in range(20)]


def choose(hosts: list[HostState], request: SchedulingRequest | None = None, seed: int = 0, **how: Any) -> Selection:
    values: dict[str, Any] = {"alive": ids(hosts), "spread": 1, "alternates": 2, "rng": random.Random(seed)}
    return select(hosts, request or a_request(), **values | how)


def names(selection: Selection) -> list[str]:
    return [host.name for host in selection.candidates]


def test_the_best_host_then_the_next_best() -> None:
    assert names(choose(HOSTS)) == ["0", "1", "2"]


def test_chance_decides_among_the_best_few_and_only_them() -> None:
    firsts = {names(choose(HOSTS, seed=seed, spread=3))[0] for seed in range(100)}
    assert firsts == {"0", "1", "2"}


def test_no_host_is_a_candidate_twice() -> None:
    for seed in range(20):
        chosen = names(choose(HOSTS, seed=seed, spread=5, alternates=9))
        assert len(chosen) == len(set(chosen)) == 10


def test_a_spread_wider_than_the_alternates_adds_none() -> None:
    assert len(choose(HOSTS, spread=8, alternates=0).candidates) == 1


def test_fewer_hosts_than_asked_for_are_all_there_are() -> None:
    assert names(choose(HOSTS[:2], alternates=5)) == ["0", "1"]


def test_only_hosts_that_pass_are_candidates() -> None:
    assert names(choose(HOSTS, a_request(excluded=frozenset({"id-0", "id-2"})))) == ["1", "3", "4"]


def test_without_a_candidate_it_says_what_became_of_each_host() -> None:
    hosts = [a_state("dead"), a_state("off", enabled=False), a_state("full", free_vcpus=0)]
    selection = choose(hosts, alive=ids(hosts[1:]))
    assert selection.candidates == []
    assert selection.considered == 3
    assert [(report.filter, report.hosts) for report in selection.reports] == [
        ("alive", ["dead"]),
        ("enabled", ["off"]),
        ("vcpus", ["full"]),
    ]


def test_no_hosts_at_all() -> None:
    assert choose([]) == Selection([], 0)
