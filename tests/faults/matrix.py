"""The matrix: finds its own cases, and runs them, several at once.

First every operation without a fault: its history gives the steps. Then every step with every fault: the histories of
those that failed give the undos. Then every undo with the faults of undos.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

from tests.faults.case import Case, Faultless, Result, run_case
from tests.faults.operations import Operation, operations
from tests.faults.plan import OF_STEPS, OF_UNDOS, Fault, Step, Strike
from tests.faults.site import Site

UNDO, RETREAT = "undo:", "retreat:"
"""How steps are called that an operation takes when it gives up, and when it goes on elsewhere."""
UNDO_NAMES = {Fault.BEFORE: "fails-once"}
SLOW = (Fault.DEAD, Fault.LATE, Fault.FAILS_LONG, Fault.HANG, Fault.KILLED, Fault.KILLED_AFTER)
# Faults that bring an operation to its undos.
REVEALING = (Fault.BEFORE_FINAL,)

Choice = Callable[[Sequence[Case]], Sequence[Case]]


@dataclass
class Matrix:
    """All cases of a site. `faults` are those to try at steps; `undos` whether undos are struck, too."""

    site: Site
    directory: Path
    faults: Sequence[Fault] = tuple(OF_STEPS)
    undos: bool = True
    only: Sequence[str] = ("*",)
    choose: Choice = lambda cases: cases
    told: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    async def run(self) -> list[Result]:
        """Run it; the results of all cases that were asked for."""
        self._slots = asyncio.Queue[int]()
        for slot in range(self.site.jobs):
            self._slots.put_nowait(slot)
        wanted = [one for one in operations() if any(_may_match(pattern, one.name) for pattern in self.only)]
        known = await self.learn(wanted)
        steps = [case for one in wanted if one.name in known for case in self.of_steps(one, known[one.name])]
        chosen = self.choose([case for case in steps if self.is_wanted(case)])
        discovering = self.undos and any(_may_match_undo(pattern) for pattern in self.only)
        revealing = [case for case in steps if discovering and case.fault in REVEALING and self.choose([case])]
        extra = [case for case in revealing if case not in chosen]
        if self.choose is not _everything and chosen:
            extra = []
        found = await self.run_all([*chosen, *extra], wanted, known, silent=extra)
        if discovering:
            undone = self.of_undos(found, known)
            await self.run_all(self.choose([case for case in undone if self.is_wanted(case)]), wanted, known)
        return self.results
