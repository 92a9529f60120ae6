"""The choice itself, a pure function of what is known about the hosts."""

import random
from dataclasses import dataclass, field

from hostler.contract.errors import FilterReport
from scheduler.filters import all_filters
from scheduler.host_state import HostState
from scheduler.request import SchedulingRequest
from scheduler.weighers import best


@dataclass(frozen=True, slots=True)
class Selection:
    """The hosts to try, in this order, and what became of the others."""

    candidates: list[HostState]
    considered: int
    reports: list[FilterReport] = field(default_factory=list)


def select(
    hosts: list[HostState],
    request: SchedulingRequest,
    *,
    alive: frozenset[str],
    spread: int,
    alternates: int,
    rng: random.Random,
) -> Selection:
    """The best host for `request` and up to `alternates` more.

    `alive` are the hosts whose worker answers, `spread` the number of best hosts among which chance decides.
    """
    passed = hosts
    reports = []
    for check in all_filters(request, alive):
        passed, report = check.apply(passed)
        if report:
            reports.append(report)
    return Selection(best(passed, 1 + alternates, spread, rng), len(hosts), reports)
