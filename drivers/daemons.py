"""Processes that outlive the worker that started them. All calls block.

The truth is the process itself: its command line names its PID file, so a PID that the kernel has given to something
else since is never taken for ours, not even after a crash between the start and its bookkeeping.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from drivers.environment import clean
from hostler.contract.errors import RescheduleError

START_SECONDS = 60
STOP_SECONDS = 10
POLL_SECONDS = 0.02


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
        """A descriptor of the running process, readable when it has ended and for the caller to close; None: dead."""
        process = self._process()
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(process.pid) if process else None
            if handle is None or self._process():  # it still was ours when the descriptor was made
                return handle
            os.close(handle)
        return None

    def start(self, *arguments: str) -> str:
        """Start it and wait until it serves; what it complains of, empty when it runs.

        Raises:
            RescheduleError: it is not installed here, or hangs.
        """
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
        """End it, by force if it does not obey, and remove its PID file."""
        self.signal(signal.SIGTERM)
        if not self._gone():
            self.signal(signal.SIGKILL)
            self._gone()
        self._pid_file.unlink(missing_ok=True)

    def _gone(self) -> bool:
        """Wait until it has ended. Its zombie counts as ended: whose child it is must not matter."""
        deadline = time.monotonic() + STOP_SECONDS
        while self._process():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _process(self) -> psutil.Process | None:
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text()))
            command = process.cmdline()
            # The command line of a process that is ending is empty.
            if self._mark in command and self._program in [Path(part).name for part in command[:1]]:
                return process
        return None
