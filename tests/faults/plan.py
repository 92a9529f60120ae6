"""What is to go wrong in one case: which fault strikes which step; written down where the workers read it."""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hostler.contract.names import HOST_QUEUE_PREFIX


class Fault(StrEnum):
    """What befalls a step. "final" faults are not retryable; a step's "effect" is what it does."""

    BEFORE = "before"
    BEFORE_FINAL = "before-final"
    AFTER = "after"
    AFTER_FINAL = "after-final"
    TWICE = "twice"
    HANG = "hang"
    LATE = "late"
    KILLED = "killed"
    KILLED_AFTER = "killed-after"
    DEAD = "dead"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    FAILS_LONG = "fails-long"
    POWER_CUT = "power-cut"
    POWER_CUT_OPPOSITE = "power-cut-opposite"
    CABLE_OUT = "cable-out"
    CABLE_OUT_OPPOSITE = "cable-out-opposite"
    RETURNED = "returned"


MEANING = {
    Fault.BEFORE: "fails once before its effect",
    Fault.BEFORE_FINAL: "fails before its effect, and is not to be retried",
    Fault.AFTER: "takes effect, and its answer is lost",
    Fault.AFTER_FINAL: "takes effect, then fails, and is not to be retried",
    Fault.TWICE: "runs twice at the same time",
    Fault.HANG: "hangs until its time-out",
    Fault.LATE: "hangs beyond its time-out, and takes effect after all",
    Fault.KILLED: "its worker is killed before the effect, and restarted",
    Fault.KILLED_AFTER: "its worker is killed after the effect, and restarted",
    Fault.DEAD: "its worker is killed after the effect, and stays dead until the operation has ended",
    Fault.CANCELLED: "the operation is cancelled while it runs",
    Fault.DELETED: "the server is deleted while it runs",
    Fault.FAILS_LONG: "fails again and again: a host's undo until it is owed",
    Fault.POWER_CUT: "its host loses its power while it runs, and is switched on again",
    Fault.POWER_CUT_OPPOSITE: "the other host of the move loses its power while it runs, and is switched on again",
    Fault.CABLE_OUT: "its host's network cable is pulled out while it runs, and put back in",
    Fault.CABLE_OUT_OPPOSITE: "the cable of the other host of the move is pulled out while it runs, and put back in",
    Fault.RETURNED: "the host that was given up for lost is switched on, or joined again, while it runs",
}

OF_MACHINES = [
    *(Fault.POWER_CUT, Fault.POWER_CUT_OPPOSITE, Fault.CABLE_OUT, Fault.CABLE_OUT_OPPOSITE),
    Fault.RETURNED,
]
"""What befalls hosts that have a power switch and a cable. No worker does that to itself, but whoever runs the case."""
OF_STEPS = [fault for fault in Fault if fault is not Fault.FAILS_LONG and fault not in OF_MACHINES]
OF_UNDOS = [Fault.BEFORE, Fault.FAILS_LONG, Fault.TWICE, Fault.HANG, Fault.KILLED, Fault.KILLED_AFTER]
KILLS = frozenset({Fault.KILLED, Fault.KILLED_AFTER, Fault.DEAD})
TIMED_OUT = KILLS | {Fault.HANG, Fault.LATE}
"""Faults of which only a time-out tells."""
LONG = 8
"""How often a step fails that fails for long: more often than a host's undo is tried."""


@dataclass(frozen=True)
class Step:
    """One activity of an operation: the `occurrence`-th of its name, counted from 1, and the queue that it went to."""

    activity: str
    occurrence: int
    queue: str

    @property
    def name(self) -> str:
        """What the step is called in the name of a case."""
        return self.activity if self.occurrence == 1 else f"{self.activity}#{self.occurrence}"

    @property
    def host_id(self) -> str | None:
        """The host's UUID, None for the control worker."""
        return self.queue.removeprefix(HOST_QUEUE_PREFIX) if self.queue.startswith(HOST_QUEUE_PREFIX) else None


@dataclass(frozen=True)
class Strike:
    """One fault at one step; `delay` seconds after it began, or (None) when it has taken effect.

    Only those of machines, and a worker's being killed, look at the delay.
    """

    activity: str
    occurrence: int
    fault: Fault
    delay: float | None = 0.0


@dataclass(frozen=True)
class Plan:
    """The strikes at the run of one workflow, by its type and ID."""

    workflow: str
    workflow_id: str
    strikes: tuple[Strike, ...]

    def find(self, activity: str, occurrence: int) -> int | None:
        """The number of the strike at this step."""
        for number, strike in enumerate(self.strikes):
            if (strike.activity, strike.occurrence) == (activity, occurrence):
                return number
        return None


@dataclass(frozen=True)
class Struck:
    """A strike that happened: which of the plan's, in which run, at which try. `done`: it has taken effect since."""

    number: int
    workflow: str
    run_id: str
    activity: str
    attempt: int
    queue: str
    done: bool = False


class Book:
    """A case's directory, as the runner and the workers share it: the plan, and what struck.

    Both are files, so that they outlive whoever is killed.
    """

    def __init__(self, directory: Path) -> None:
        self._plan = directory / "plan.json"
        self._struck = directory / "struck.jsonl"
        self._away = directory / "away"
        self._dealt = directory / "dealt"
        self._known: Plan | None = None
        self._written = 0

    def arm(self, plan: Plan) -> None:
        """From here on the plan's faults strike."""
        part = self._plan.with_suffix(".new")
        part.write_text(json.dumps(asdict(plan)))
        part.rename(self._plan)

    def plan(self) -> Plan | None:
        """The plan, if there is one yet."""
        try:
            written = self._plan.stat().st_mtime_ns
            if written != self._written:
                read = json.loads(self._plan.read_text())
                strikes = tuple(Strike(**one | {"fault": Fault(one["fault"])}) for one in read["strikes"])
                self._known = Plan(read["workflow"], read["workflow_id"], strikes)
                self._written = written
        except FileNotFoundError:
            return None
        return self._known

    def clear(self) -> None:
        """For the next case, where workers outlive one."""
        for file in (self._plan, self._struck, self._away, self._dealt):
            file.unlink(missing_ok=True)

    def deal(self) -> None:
        """The fault of the machine is there: the step that it was for need not be kept up any longer."""
        self._dealt.touch()

    def dealt(self) -> bool:
        """Whether it is."""
        return self._dealt.exists()

    def leave(self, queue: str) -> None:
        """From here on the host of this queue is away for long: nobody need wait for it."""
        with self._away.open("a") as file:
            file.write(f"{queue}\n")

    def come_back(self) -> None:
        """Nobody is away any more."""
        self._away.unlink(missing_ok=True)

    def away(self) -> frozenset[str]:
        """The queues of hosts that are away."""
        try:
            return frozenset(self._away.read_text().split())
        except FileNotFoundError:
            return frozenset()

    def enter(self, struck: Struck) -> None:
        """Write down that a fault strikes now; a SIGKILL does not take it back."""
        line = json.dumps(asdict(struck)) + "\n"
        handle = os.open(self._struck, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def struck(self) -> list[Struck]:
        """What struck until now."""
        try:
            lines = self._struck.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Struck(**_record(line)) for line in lines]


def _record(line: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    return record
