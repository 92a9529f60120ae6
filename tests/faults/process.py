"""Worker processes: the product's own `run` of a control or host worker, with the faults in its Temporal client.

They are forked from a server process that has imported the product, so that starting one takes little.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from temporalio.client import Client

import workers.control
import workers.host
from hostler.settings import LogSettings, Settings
from tests.faults.injection import Injector
from tests.faults.plan import Book
from workers import logs

Kind = Literal["control", "host"]

BEAT = timedelta(seconds=1)
PRELOADED = ["__main__", "tests.faults.preloaded"]
# Intervals of the product at which it looks again by itself. What is waited for here is the looking, not the interval.
SHORTER: dict[Any, dict[str, Any]] = {
    workers.control: {"nudge": partial(workers.control.nudge, every=BEAT), "STICKY": BEAT},
    workers.host: {"RETRY_SECONDS": 0.5},
}
NEVER = datetime.min.replace(tzinfo=UTC)
_PR_SET_PDEATHSIG = 1


@dataclass
class Worker:
    """One worker process, which may be killed and started again. `defect` breaks the product in it, on purpose."""

    name: str
    kind: Kind
    settings: Settings
    directory: Path
    defect: Callable[[], None] | None = None
    starts: int = 0
    started_at: datetime = NEVER
    process: BaseProcess | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it; does not wait until it is of use."""
        assert not self.alive
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        arguments = (self.kind, self.settings, self.directory, self.log, self.defect)
        self.started_at = datetime.now(UTC)
        self.process = context.Process(target=_work, args=arguments, name=self.name, daemon=True)
        self.process.start()
        self.starts += 1

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.is_alive()

    @property
    def log(self) -> Path:
        """What it said."""
        return self.directory / f"{self.name}.log"

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.process.kill()
            self.process.join()


def _work(kind: Kind, settings: Settings, directory: Path, log: Path, defect: Callable[[], None] | None) -> None:
    """The process."""
    _die_with(os.getppid())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if defect is not None:
        defect()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    work(kind, settings, Injector(Book(directory), settings))


def work(kind: Kind, settings: Settings, injector: Injector) -> None:
    """Be the worker, with the faults in it, until it is asked to stop."""
    logs.configure(LogSettings(), kind)
    module = {"control": workers.control, "host": workers.host}[kind]
    connect = module.connect

    async def connect_with_faults(*arguments: Any, **options: Any) -> Client:
        return injector.enter(await connect(*arguments, **options))

    _replace(module, "connect", connect_with_faults)
    for owner, values in SHORTER.items():
        for name, value in values.items():
            _replace(owner, name, value)
    asyncio.run(module.run(settings))


def _replace(module: Any, name: str, value: Any) -> None:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name} any more: {__file__} must learn its new name")
    setattr(module, name, value)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
