"""Watching operations: their steps drawn live on a terminal, a line for each change elsewhere."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hostler.cli import holds
from hostler.cli.output import console, note, printable
from hostler.client import Operation
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Hold, Progress, Server, Step, StepStatus

MARKS = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.RUNNING: ("▸", "cyan"),
    StepStatus.HELD: ("‖", "bold yellow"),
    StepStatus.DONE: ("✓", "green"),
    StepStatus.FAILED: ("✗", "bold red"),
    StepStatus.UNDOING: ("↶", "yellow"),
    StepStatus.UNDONE: ("↶", "yellow"),
    StepStatus.OWED: ("!", "magenta"),
}
UNDER_WAY = (StepStatus.RUNNING, StepStatus.UNDOING)
UNDO = (StepStatus.UNDOING, StepStatus.UNDONE, StepStatus.OWED)
NOTE_INTERVAL = timedelta(seconds=5)
"""Lines: how long a step under way that says something new waits after it said something."""


class View(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, name: str, progress: Progress) -> None:
        """Show how far an operation on the server `name` is."""


async def watch(operations: Mapping[str, Operation]) -> dict[str, Server | HostlerError]:
    """Show operations, by their servers' names, until all have ended; returns how each of them did."""

    async def one(name: str, operation: Operation) -> Server | HostlerError:
        try:
            async for progress in operation.follow():
                view.show(name, progress)
            return await operation.result()
        except HostlerError as error:
            return error

    try:
        with Board() if sys.stderr.isatty() else Lines() as view:
            outcomes = await asyncio.gather(*(one(name, operation) for name, operation in operations.items()))
    except asyncio.CancelledError:
        for name, operation in operations.items():
            note(f"the {operation.operation} of {name} goes on; see it with: hostler server follow {name}")
        raise
    return dict(zip(operations, outcomes, strict=True))


class Board:
    """A table of steps for each run, redrawn as they go."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, Progress]] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            get_renderable=self._draw,
            console=console(stderr=True),
            refresh_per_second=10,
            vertical_overflow="visible",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, name: str, progress: Progress) -> None:
        """See `View`."""
        self._runs[progress.run_id] = (name, progress)

    def _draw(self) -> Group:
        runs = list(self._runs.values())  # drawn by a thread
        return Group(*(part for name, progress in runs for part in self._parts(name, progress)))

    def _parts(self, name: str, progress: Progress) -> tuple[RenderableType, ...]:
        title = Text(printable(f"{progress.operation} {name}"), style="bold")
        if progress.attempt > 1:
            title.append(f", attempt {progress.attempt}", style="yellow")
        title.append(f"  {total(progress)}", style="dim")
        grid = Table.grid(padding=(0, 2))
        for step in progress.steps:
            mark, style = MARKS[step.status]
            grid.add_row(
                self._spinner if step.status is StepStatus.RUNNING and not progress.done else Text(mark, style=style),
                Text(printable(step.name), style=style if step.status is not StepStatus.DONE else ""),
                Text(printable(step.host or ""), style="blue"),
                Text(f"attempt {step.attempt}" if step.attempt > 1 else "", style="yellow"),
                Text(_seconds(step), style="dim"),
                Text(printable(remark(step, with_status=True)), style="red" if step.error else "dim"),
            )
        if progress.hold is None:
            return title, grid
        held, *commands = decision(name, progress.hold)
        return title, grid, Text(printable(held), style="bold yellow"), *(Text(f"  {line}") for line in commands)


class Lines:
    """A line for each step that began, failed, was tried again, undone or ended, and now and then for what it says."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._shown: dict[tuple[str, int], tuple[object, ...]] = {}
        self._said: dict[tuple[str, int], tuple[str, float]] = {}
        self._hold: dict[str, Hold | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def show(self, name: str, progress: Progress) -> None:
        """See `View`."""
        for index, step in enumerate(progress.steps):
            key, state = (progress.run_id, index), (step.status, step.retries, step.error)
            if step.status is StepStatus.PENDING or (self._shown.get(key) == state and not self._says_more(key, step)):
                continue
            self._shown[key] = state
            if step.note:
                self._said[key] = step.note, self._clock()
            parts = [
                f"{progress.operation} {name}: {step.name} {step.status}",
                f"on {step.host}" if step.host else "",
                f"(attempt {step.attempt})" if step.attempt > 1 else "",
                f"after {_seconds(step)}" if step.status in (StepStatus.DONE, StepStatus.FAILED) else "",
                f"- {remark(step)}" if remark(step) else "",
            ]
            note(" ".join(filter(None, parts)))
        if progress.hold is not None and progress.hold != self._hold.get(progress.run_id):
            held, *commands = decision(name, progress.hold)
            note("\n  ".join([f"{progress.operation} {name}: {held}", *commands]))
        self._hold[progress.run_id] = progress.hold
        if progress.done:
            note(f"{progress.operation} {name}: ended after {total(progress)}")

    def _says_more(self, key: tuple[str, int], step: Step) -> bool:
        """Whether a step under way says something new, and has been quiet for long enough."""
        if step.status not in UNDER_WAY or not step.note:
            return False
        said, at = self._said.get(key, (None, 0.0))
        return said is None or (said != step.note and self._clock() - at >= NOTE_INTERVAL.total_seconds())


def remark(step: Step, *, with_status: bool = False) -> str:
    """What is to be said of a step; a mark alone does not tell the ways of being undone apart."""
    parts = [
        step.status.value if with_status and step.status in UNDO else "",
        f"retry {step.retries}" if step.retries and step.status in UNDER_WAY else "",
        step.note or "",
        step.error or "",
    ]
    return ", ".join(filter(None, parts))


def decision(name: str, hold: Hold) -> list[str]:
    """What a hold waits for, and the commands by which it is decided on."""
    return [f"holds at {holds.where(hold)}, {holds.deadline(hold)}; decide:", *holds.commands(hold, name)]


def total(progress: Progress) -> str:
    """How long the operation has been running, or ran."""
    began = [s.started_at for s in progress.steps if s.started_at]
    ended = [s.finished_at for s in progress.steps if s.finished_at]
    if not began:
        return ""
    end = max(ended) if progress.done and ended else datetime.now(UTC)
    return _duration(min(began), end)


def _seconds(step: Step) -> str:
    if step.started_at is None:
        return ""
    return _duration(step.started_at, step.finished_at or datetime.now(UTC))


def _duration(began: datetime, ended: datetime) -> str:
    # This machine's clock may be behind the worker's.
    seconds = max((ended - began).total_seconds(), 0)
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
