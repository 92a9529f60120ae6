"""A program as a child process that a test kills and starts again, by its PID."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 30


@dataclass
class Process:
    """One program with its log. It dies with the process that started it, which must be done by the main thread."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    starts: int = 0
    _child: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        """The process's ID; it must have been started."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it; does not wait until it is of use."""
        assert not self.running, f"{self.name} runs already"
        # The kernel's death signal is forgotten when the user changes, so setpriv changes the user first.
        as_user = [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"] if self.user else []
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                ["setpriv", *as_user, "--pdeathsig=KILL", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env={k: v for k, v in os.environ.items() if not k.startswith("HOSTLER_")} | dict(self.environment),
                start_new_session=True,
            )
        self.starts += 1

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not obey."""
        if self._child is not None:
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.wait()
            self.kill()

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it does not end.
        """
        if self._child is not None:
            self._child.wait(STOP_SECONDS)

    def restart(self) -> None:
        """SIGKILL, and start again at once."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: it is there, but does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def said(self, text: str, *, times: int = 1, within: float = 60) -> None:
        """Return when its log has the text so many times.

        Raises:
            AssertionError: it does not.
        """
        deadline = time.monotonic() + within
        while self.log.read_text(errors="replace").count(text) < times:
            assert time.monotonic() < deadline, f"{self.name} did not say {text!r}:\n{self.end_of_log()}"
            time.sleep(0.05)

    def end_of_log(self, lines: int = 20) -> str:
        """The last it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
