"""The matrix on the lab: every step of every move of a server, with what can befall a machine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.faults.case import Case, Result
from tests.faults.lab.case import HANDOVER, MOVES, UNFENCED, run_case
from tests.faults.lab.cloud import LabCloud
from tests.faults.matrix import sample
from tests.faults.plan import Fault, Step, Strike

OF_CONTROL = (Fault.AFTER, Fault.KILLED)
OF_HOSTS = (Fault.AFTER, Fault.KILLED, Fault.POWER_CUT, Fault.CABLE_OUT)
OF_PAIRS = (Fault.POWER_CUT_OPPOSITE, Fault.CABLE_OUT_OPPOSITE)
LONG_SECONDS = 1.0
"""A step that takes longer is also struck halfway, and just before it ends."""
LOSES_ITS_HOST, HANDS_OVER = "evacuate", "migrate_guest"
BETWEEN_HOSTS = (HANDS_OVER, "receive_disks")
"""The steps in which one host talks to the other one of the move."""


@dataclass
class LabMatrix:
    """The cases whose names match `only`; with `sample`, about so many of them. One after the other."""

    cloud: LabCloud
    only: Sequence[str] = ("*",)
    sample: int | None = None
    told: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)

    async def run(self) -> list[Result]:
        """Run them."""
        for case in await self.cases():
            result, _ = await run_case(self.cloud, MOVES[case.operation], case)
            self._tell(result)
        return self.results

    async def cases(self) -> list[Case]:
        """What is to be run: each operation is carried out once without a fault, to learn its steps."""
        found: list[Case] = []
        for name in moves(self.only):
            found += await self._learn(name)
        wanted = [case for case in found if any(fnmatchcase(case.name, pattern) for pattern in self.only)]
        return wanted if self.sample is None else sample(wanted, self.sample)

    async def _learn(self, name: str) -> list[Case]:
        faultless, seconds = await run_case(self.cloud, MOVES[name], Case(name, "", ""))
        if faultless.outcome != "completed":
            faultless.problems.append(f"without a fault it ended as {faultless.outcome}")
        self._tell(faultless)
        steps = faultless.steps if faultless.passed else []
        return [case for step in steps for case in of_step(name, step, seconds.get(step, 0.0))]

    def _tell(self, result: Result) -> None:
        self.results.append(result)
        self.told(result)


def moves(only: Sequence[str]) -> list[str]:
    """The operations of which cases may match."""
    return [name for name in MOVES if any(fnmatchcase(name, pattern.partition("/")[0]) for pattern in only)]


def of_step(operation: str, step: Step, seconds: float) -> Iterator[Case]:
    """The cases of one step, which takes so long when nothing happens."""
    if operation == UNFENCED:
        yield make_case(operation, step, Fault.RETURNED)
        return
    returns = (Fault.RETURNED,) if operation == LOSES_ITS_HOST else ()
    pairs: tuple[Fault, ...] = OF_PAIRS if step.activity in BETWEEN_HOSTS else ()
    if step.host_id is None:
        pairs = OF_PAIRS[1:]  # of the guest's host, or the next where that is off, while the control plane is at work
    for fault in (*(OF_HOSTS if step.host_id else OF_CONTROL), *pairs, *returns):
        yield make_case(operation, step, fault)
    if step.host_id is not None and seconds >= LONG_SECONDS:
        for fault in (*OF_HOSTS[1:], *pairs):
            yield make_case(operation, step, fault, "@half", round(seconds / 2, 1))
        for fault in (*OF_HOSTS[2:], *pairs):
            yield make_case(operation, step, fault, "@end", None)
    if step.activity == HANDS_OVER:
        for fault in (*OF_HOSTS[2:], *pairs):
            yield make_case(operation, step, fault, HANDOVER)


def make_case(operation: str, step: Step, fault: Fault, when: str = "", delay: float | None = 0.0) -> Case:
    """The case of a fault at a step, so long after it has begun (None: when it has taken effect)."""
    strike = Strike(step.activity, step.occurrence, fault, delay)
    return Case(operation, f"{step.name}{when}", fault, (strike,))
