"""A step: one activity with its undo, its time-outs and its retries; and the ledger of undos, the saga."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from temporalio.common import RetryPolicy

from activities.interfaces.servers import HostRef
from hostler.contract.servers import Step

Argument = TypeVar("Argument", bound=BaseModel)
Result = TypeVar("Result")

# Errors that say that the code or its input is wrong: the same call fails again.
DEFECTS = [
    *("TypeError", "ValueError", "KeyError", "IndexError", "AttributeError", "AssertionError", "ValidationError"),
    *("ProgrammingError", "DataError"),  # the database's words for a statement that is wrong
]

# A control step waits for as long as the database is away; a host step does not: there are other hosts.
CONTROL_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=DEFECTS,
)
HOST_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=3,
    non_retryable_error_types=DEFECTS,
)
CONTROL_UNDO_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))
HOST_UNDO_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10), maximum_attempts=5
)


QUICK_STEP = timedelta(seconds=30)
"""The time-out of a call that is one transaction."""


@dataclass(frozen=True)
class StepDefinition(Generic[Argument, Result]):
    """One line of an operation's table. `heartbeat` is how long a step that takes its time may be silent."""

    activity: Callable[..., Any]
    undo: Callable[..., Any] | None = None
    timeout: timedelta = QUICK_STEP
    heartbeat: timedelta | None = None

    @property
    def name(self) -> str:
        """The activity's name; interfaces name their methods after it."""
        return self.activity.__name__


@dataclass
class Undo:
    """What takes one step back, wherever it got to."""

    record: Step
    activity: Callable[..., Any]
    argument: BaseModel
    host: HostRef | None


@dataclass
class Saga:
    """The undos of what has been begun, in order; each is entered before its step starts."""

    undos: list[Undo] = field(default_factory=list)

    def enter(self, undo: Undo) -> None:
        """Remember how to take back what is about to begin."""
        self.undos.append(undo)

    def take(self) -> list[Undo]:
        """The undos, last first; the saga is empty afterwards."""
        undos = self.undos[::-1]
        self.undos = []
        return undos
