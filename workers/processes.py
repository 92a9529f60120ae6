"""Child processes that are kept running: started again when they die, asked to end in order, never left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

Say = Callable[[str, str], None]
"""Shows a line: whose, and what."""

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=0.5), timedelta(seconds=10)
STEADY = timedelta(seconds=30)
"""Who has run this long is started again at once when it dies."""
LONGEST_LINE = 1 << 20
PRIVATE_UMASK = 0o077

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


# What any program may need of our environment. All else may be a secret: a cloud's, a database's, somebody's own.
HARMLESS = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR"})
HARMLESS_PREFIXES = ("LC_", "PYTHON", "XDG_", "LD_", "SSL_CERT_", "LIBVIRT_")


@dataclass(frozen=True)
class Program:
    """What to run, under which name. It gets `environment`, and of ours what is harmless, or all if it is `trusted`.

    `private`: others than its owner can use none of the files that it makes.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = False
    private: bool = False

    def whole_environment(self) -> dict[str, str]:
        """All of its environment."""
        ours = {name: value for name, value in os.environ.items() if self.trusted or _is_harmless(name)}
        return {**ours, "PYTHONUNBUFFERED": "1", **self.environment}


def _is_harmless(name: str) -> bool:
    return name in HARMLESS or name.startswith(HARMLESS_PREFIXES)


class Child:
    """A program that runs until it is stopped."""

    def __init__(self, program: Program, say: Say) -> None:
        self.name = program.name
        self.starts = 0
        self._program = program
        self._say = say
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running(), name=program.name)

    @property
    def pid(self) -> int | None:
        """The process's ID, while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def ended(self) -> None:
        """Wait until it is stopped.

        Raises:
            OSError: it cannot be started at all.
        """
        await asyncio.shield(self._task)

    async def stop(self, grace: timedelta) -> None:
        """Ask it to end, and end it after `grace`."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=grace.total_seconds())
        if not done:
            self._say(self.name, f"did not end within {grace.total_seconds():g} s: killed")
            self.kill()
            await asyncio.wait([self._task])

    def kill(self) -> None:
        """End it at once, for good."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _keep_running(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY.total_seconds():
                delay = FIRST_DELAY
            self._say(self.name, f"{outcome(code)}; starting it again in {delay.total_seconds():g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay.total_seconds()):
                    await self._stopping.wait()
            delay = min(2 * delay, LONGEST_DELAY)

    async def _run(self) -> int:
        self._process, output = await spawn(self._program)
        self.starts += 1
        if self._stopping.is_set():  # it was being started when that was said
            self._signal(signal.SIGTERM)
        reading = asyncio.create_task(self._show(output))
        code = await self._process.wait()
        await asyncio.wait([reading], timeout=1)  # not for ever: its own children may hold the pipe open
        return code

    async def _show(self, output: asyncio.StreamReader) -> None:
        while not output.at_eof():
            try:
                line = await output.readline()
            except ValueError:  # longer than anybody would read; what follows it is shown again
                line = b"(a line that is too long to show)"
            if line:
                self._say(self.name, line.decode(errors="replace").rstrip())


async def spawn(program: Program) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """Start the program in a session of its own, so that no Ctrl-C reaches it, and dying with us. Its output."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    # A pipe of our own: with asyncio's, waiting for the process would wait for its daemons too.
    read_end, write_end = os.pipe()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            env=program.whole_environment(),
            umask=PRIVATE_UMASK if program.private else -1,
            start_new_session=True,
            preexec_fn=_DieWith(os.getpid()),
        )
    finally:
        os.close(write_end)
    return process, reader


class _DieWith:
    """Has the kernel kill the process that calls it when its parent dies, however that happens."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self) -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._parent:  # it died before we could ask
            os._exit(1)


def outcome(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Printer:
    """Shows lines on standard error behind the name of who wrote them, in a colour each where there are colours."""

    COLOURS = (36, 32, 33, 35, 34, 31)

    def __init__(self, names: Sequence[str]) -> None:
        self._width = max(map(len, names), default=0)
        coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._colours = dict(zip(names, self.COLOURS, strict=False)) if coloured else {}

    def __call__(self, name: str, line: str) -> None:
        """Show a line."""
        label = f"{name:{self._width}} |"
        if name in self._colours:
            label = f"\x1b[{self._colours[name]}m{label}\x1b[0m"
        sys.stderr.write(f"{label} {line}\n")
        sys.stderr.flush()
