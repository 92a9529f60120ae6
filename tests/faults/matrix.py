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
REVEALING = Fault.BEFORE_FINAL
"""The fault that brings an operation to its undos."""
FINAL = (Fault.BEFORE_FINAL, Fault.AFTER_FINAL)
"""The faults that make a step fail for good."""
SLOW = (Fault.DEAD, Fault.LATE, Fault.FAILS_LONG, Fault.HANG, Fault.KILLED, Fault.KILLED_AFTER)


@dataclass
class Matrix:
    """The cases of a site whose names match `only`; with `sample`, so many of them (see `sample`)."""

    site: Site
    directory: Path
    only: Sequence[str] = ("*",)
    faults: Sequence[Fault] = tuple(OF_STEPS)
    undos: bool = True
    sample: int | None = None
    told: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)
    _slots: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)
    _numbers: "count[int]" = field(default_factory=count)

    async def run(self) -> list[Result]:
        """Run them; the results of those that were asked for, and of what they need and what failed."""
        for slot in range(self.site.jobs):
            self._slots.put_nowait(slot)
        wanted = self.operations()
        known = await self.learn(wanted)
        steps = [case for name, faultless in known.items() for case in of_steps(name, faultless.steps, self.faults)]
        chosen = [case for case in steps if self.wants(case)]
        revealing = [case for case in steps if case.fault == REVEALING and self.may_want(f"{case.operation}/{UNDO}")]
        if self.sample is not None:
            chosen = sample(chosen, self.sample)
            revealing = [case for case in revealing if case in chosen]
        if not self.undos:
            revealing = []
        found = await self.run_all({*chosen, *revealing}, wanted, known)
        self.report(found, chosen)
        undos = [case for case in of_undos([one for one in found if one.case in revealing], known) if self.wants(case)]
        if self.sample is not None:
            undos = sample(undos, self.sample // 3)
        self.report(await self.run_all(undos, wanted, known), undos)
        return self.results

    def operations(self) -> dict[str, Operation]:
        """Those that may have been asked for, and that the site can carry out."""
        return {
            one.name: one for one in operations() if one.workflow not in self.site.without and self.may_want(one.name)
        }

    async def names(self) -> list[str]:
        """The names of the cases at steps. Those at undos are known only once others have run."""
        for slot in range(self.site.jobs):
            self._slots.put_nowait(slot)
        known = await self.learn(self.operations())
        cases = [case for name, faultless in known.items() for case in of_steps(name, faultless.steps, self.faults)]
        return [case.name for case in cases if self.wants(case)]

    async def learn(self, wanted: dict[str, Operation]) -> dict[str, Faultless]:
        """How the operations go without a fault; one that does not go is a failure by itself."""
        cases = [Case(name, "", "") for name in wanted]
        results = await self.run_all(cases, wanted, {})
        self.report(results, [one.case for one in results if self.wants(one.case) or not one.passed])
        return {one.case.operation: one.faultless for one in results if one.passed and one.faultless}

    async def run_all(
        self, cases: Iterable[Case], wanted: dict[str, Operation], known: dict[str, Faultless]
    ) -> list[Result]:
        """Run the cases, those that take long first."""

        async def one(case: Case) -> Result:
            slot = await self._slots.get()
            try:
                directory = self.directory / f"case-{next(self._numbers)}"
                operation = wanted[case.operation]
                result = await run_case(self.site, directory, slot, operation, case, known.get(case.operation))
            finally:
                self._slots.put_nowait(slot)
            self.told(result)
            return result

        def late(case: Case) -> tuple[bool, str]:
            return all(strike.fault not in SLOW for strike in case.strikes), case.name

        return await asyncio.gather(*(one(case) for case in sorted(cases, key=late)))

    def report(self, results: Sequence[Result], asked: Sequence[Case]) -> None:
        """Take the results of the cases that were asked for, in their order."""
        by_case = {result.case: result for result in results}
        self.results += [by_case[case] for case in asked]

    def wants(self, case: Case) -> bool:
        """Whether the case was asked for."""
        return any(fnmatchcase(case.name, pattern) for pattern in self.only)

    def may_want(self, beginning: str) -> bool:
        """Whether a case whose name begins so may have been asked for."""
        return any(_may_match(pattern, beginning) for pattern in self.only)


def of_steps(operation: str, steps: Sequence[Step], faults: Sequence[Fault]) -> list[Case]:
    """Every step with every fault that makes sense there.

    Only servers can be deleted in the middle of something.
    """
    on_server = {one.name for one in operations() if one.on_server}
    failing = {one.name for one in operations() if one.differs_by_failure}
    return [
        Case(operation, step.name, fault, (Strike(step.activity, step.occurrence, fault),))
        for step in steps
        for fault in faults
        if (fault is not Fault.DELETED or operation in on_server) and (fault in FINAL or operation not in failing)
    ]


def of_undos(results: Sequence[Result], known: dict[str, Faultless]) -> list[Case]:
    """Every undo that showed in the failed cases, each after the failure that has the most to undo.

    What comes after a failure in an operation that ends as failed is its undo. Where it goes on elsewhere, it is what
    the run says of itself, or what a run without a fault does not have. Work on hosts has no undos.
    """
    without = {one.name for one in operations() if one.is_host_work}
    after: dict[tuple[str, str], tuple[int, Strike, Step]] = {}
    for result in sorted((one for one in results if one.case.operation not in without), key=lambda one: one.case.name):
        goes_on = result.outcome == "completed"
        usual = {step.activity for step in known[result.case.operation].steps}
        undos = [step for step in result.aftermath if not goes_on or step in result.undos or step.activity not in usual]
        for step in undos:
            key = (result.case.operation, (RETREAT if goes_on else UNDO) + step.activity)
            if key not in after or len(undos) > after[key][0]:
                after[key] = (len(undos), result.case.strikes[0], step)
    return [
        Case(
            operation,
            name,
            UNDO_NAMES.get(fault, fault),
            (strike, Strike(step.activity, step.occurrence, fault)),
        )
        for (operation, name), (_, strike, step) in after.items()
        for fault in OF_UNDOS
    ]


def sample(cases: Sequence[Case], number: int) -> list[Case]:
    """About so many, the same every time: each operation and each fault is among them, as are steps of all kinds."""
    left = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())
    chosen: list[Case] = []
    for aspect in ("operation", "fault"):
        for case in left:
            if getattr(case, aspect) not in {getattr(one, aspect) for one in chosen}:
                chosen.append(case)
    return [*chosen, *[case for case in left if case not in chosen][: max(0, number - len(chosen))]]


def _may_match(pattern: str, beginning: str) -> bool:
    """Whether a name that begins so can match the pattern, part by part."""
    for part, given in zip(pattern.split("/"), beginning.split("/"), strict=False):
        if "*" in part and "/" not in pattern:
            return fnmatchcase(given, part) or part.endswith("*")
        if given.endswith(":"):
            return part.startswith((UNDO, RETREAT, "*", "?", "["))
        if not fnmatchcase(given, part):
            return False
    return True
