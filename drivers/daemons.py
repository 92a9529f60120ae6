"""Processes that outlive the worker that started them. All calls block.

The truth is the process itself: its command line names its PID file, so a PID that the kernel has given to something
else since is never taken for ours, not even after a crash between the start and its bookkeeping.
"""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from drivers.environment import clean
from hostler.contract.errors import RescheduleError

START_SECONDS = 60
STOP_SECONDS = 10


class Daemon:
    """A program that puts itself into the background and writes its PID to a file given as `--pid-file=`."""

    def __init__(self, program: str, package: str, pid_file: Path) -> None:
        self._program = program
        self._package = package
        self._pid_file = pid_file
        self._mark = f"--pid-file={pid_file}"

    def arguments(self) -> list[str] | None:
        """What the running process was started with, or None when there is none. A zombie is none."""
        process = self._process()
        with suppress(psutil.Error):
            return process.cmdline()[2:] if process else None
        return None

    def handle(self) -> int | None:
        """A descriptor of the process, readable when it has ended and for the caller to close; None: there is none."""
        with (
            suppress(FileNotFoundError, ValueError, psutil.Error, ProcessLookupError),
            ExitStack() as unless_ours,
        ):
            process = psutil.Process(int(self._pid_file.read_text()))
            descriptor = os.pidfd_open(process.pid)
            unless_ours.callback(os.close, descriptor)
            if self._is_ours(process) or self._is_ending(process):  # asked of the process that the descriptor is of
                unless_ours.pop_all()
                return descriptor
        return None

    def start(self, *arguments: str) -> str:
        """Start it, which must not run, and wait until it serves; what it complains of, empty when it runs.

        Raises:
            RescheduleError: it is not installed here, or hangs.
        """
        with self._held() as ending:  # one that has just been killed still has the port and the files
            if ending is not None:
                _ended(ending, STOP_SECONDS)
        try:
            done = subprocess.run(
                [self._program, self._mark, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=START_SECONDS,
                env=clean(),
            )
        except FileNotFoundError as error:
            raise RescheduleError(
                f"{self._program} is not installed on this host", remedy=f"install the package {self._package}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise RescheduleError(f"{self._program} has not started within {START_SECONDS} s") from error
        return done.stderr.strip() or "it gives no reason" if done.returncode else ""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if process := self._process():
            with suppress(psutil.Error):
                process.send_signal(number)

    def stop(self) -> None:
        """End it, by force if it does not obey, and remove its PID file. Its port and files are free afterwards."""
        with self._held() as descriptor:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if descriptor is not None and not _ended(descriptor, 0):
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(descriptor, number)
                    _ended(descriptor, STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)

    @contextmanager
    def _held(self) -> Iterator[int | None]:
        """See `handle`: it is closed at the end."""
        descriptor = self.handle()
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _process(self) -> psutil.Process | None:
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text()))
            return process if self._is_ours(process) else None
        return None

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether it lives and is the daemon of this PID file."""
        with suppress(psutil.ZombieProcess):
            command = process.cmdline()
            return self._mark in command and self._program in [Path(part).name for part in command[:1]]
        return False

    def _is_ending(self, process: psutil.Process) -> bool:
        """Whether it looks like the daemon in its last moments: its command line goes before its sockets."""
        with suppress(psutil.ZombieProcess):
            return process.name() == self._program and not process.cmdline()
        return False


def _ended(descriptor: int, seconds: float) -> bool:
    """Whether the process ends within this time. Its zombie counts as ended: whose child it is must not matter."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
