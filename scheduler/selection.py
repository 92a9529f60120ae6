"""The choice itself, a pure function of what is known about the hosts."""

import random
from dataclasses import dataclass, field
from itertools import islice

from hostler.contract.errors import FilterReport
from scheduler.filters import all_filters, all_pass, explain
from scheduler.host_state import HostState
from scheduler.request import SchedulingRequest
from scheduler.weighers import best_first


@dataclass(frozen=True, slots=True)
class Selection:
    """The hosts to try, in this order; if there is none, what became of all that were considered."""

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
    checks = all_filters(request, alive)
    count = 1 + alternates
    fitting = filter(all_pass(checks), best_first(hosts, rng))
    candidates = list(islice(fitting, max(spread, count)))
    if not candidates:
        return Selection([], len(hosts), explain(hosts, checks))
    # Others choose at the same moment: not all of them should go for the very best.
    chosen = candidates.pop(rng.randrange(min(spread, len(candidates))))
    return Selection([chosen, *candidates][:count], len(hosts))
