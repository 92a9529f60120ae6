"""`hostler dev`: a whole cloud on one machine, as child processes of one supervisor.

Temporal's development server, a control worker, a host worker, and if wanted another one with simulated hosts. What
dies is started again; all state is in the state directory, so nothing is lost when everything is killed.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from hostler.client import Client
from hostler.contract.errors import Conflict, HostlerError, InvalidRequest, OperationFailed, Unavailable
from hostler.settings import Settings
from workers import dev_metrics, dev_secrets, temporal_server
from workers.processes import Child, Printer, Program, Say, outcome, spawn

Ready = Callable[[], Awaitable[str]]
"""Waits until the cloud is of use, and gives the text that says so."""

SUPERVISOR = "dev"
READY_LIMIT, SETTLING = timedelta(seconds=120), timedelta(seconds=15)
WORKER_GRACE, SERVER_GRACE = timedelta(seconds=9), timedelta(seconds=3)
# On one machine a heartbeat costs next to nothing, and whoever tries things out does not want to wait.
HEARTBEAT_INTERVAL = "PT2S"


@dataclass(frozen=True)
class Plan:
    """What to run: the server; beside it, one after the other to its end, the first programs; then the workers."""

    first: Sequence[Program]
    server: Program
    workers: Sequence[Program]
    metrics: Sequence[str] = ()
    """Where the workers serve theirs."""

    @property
    def names(self) -> list[str]:
        """Everybody who has something to say."""
        return [SUPERVISOR, *(program.name for program in (*self.first, self.server, *self.workers))]


@contextlib.contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """Make sure that nobody else runs a cloud in this state directory.

    Raises:
        Conflict: somebody does; it says who.
        InvalidRequest: the directory cannot be made.
    """
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            f"the state directory cannot be made: {error.strerror}",
            field="state_dir",
            value=settings.state_dir,
            remedy="make it, or set another one: state_dir (HOSTLER_STATE_DIR)",
        ) from error
    with (settings.state_dir / "dev.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = _owner(file.read())
            raise Conflict(
                f"`hostler dev` runs already in {settings.state_dir}{owner}",
                field="state_dir",
                remedy="use that one, or set state_dir (HOSTLER_STATE_DIR), temporal.address and temporal.ui_url",
            ) from None
        file.truncate(0)
        json.dump({"pid": os.getpid(), "ui": settings.temporal.ui_url}, file)
        file.flush()
        yield


def plan(settings: Settings, config: Path | None, *, libvirt: bool, simulated: int) -> Plan:
    """The processes of a cloud with these settings: the host that this machine is, and simulated ones."""
    common = environment(settings, config)
    of_host = dev_secrets.for_host(settings, common)
    hosts = []
    if libvirt:
        hosts.append(Program("host", hostler("worker", "host"), {**of_host, "HOSTLER_HOST__DRIVER": "libvirt"}))
    if simulated:
        changes = {"HOSTLER_HOST__DRIVER": "simulated", "HOSTLER_HOST__SIMULATED__HOSTS": str(simulated)}
        hosts.append(Program("simulated", hostler("worker", "host"), {**of_host, **changes}))
    port = dev_secrets.codec_port(settings)
    of_codec = dev_secrets.for_codec(settings, common, port)
    command = temporal_server.command(
        temporal_server.find_binary(),
        settings.temporal,
        settings.state_dir / dev_secrets.TEMPORAL_DATABASE,
        dev_secrets.codec_url(settings, port),
    )
    workers = [
        Program("control", hostler("worker", "control"), common, trusted=True),
        Program("codec", hostler("worker", "codec"), of_codec),
        *hosts,
    ]
    metrics = dev_metrics.ports(settings, [worker.name for worker in workers])
    return Plan(
        first=[Program("database", hostler("db", "upgrade"), common, trusted=True)],
        server=Program("temporal", command, private=True),
        workers=[dev_metrics.with_port(worker, metrics) for worker in workers],
        metrics=dev_metrics.urls(settings, metrics),
    )


def environment(settings: Settings, config: Path | None) -> dict[str, str]:
    """What makes the children read the settings that we have, flags included."""
    chosen = {
        "HOSTLER_STATE_DIR": str(settings.state_dir.absolute()),
        "HOSTLER_PROJECT": settings.project,
        "HOSTLER_TEMPORAL__ADDRESS": settings.temporal.address,
    }
    if config is not None:
        chosen["HOSTLER_CONFIG"] = str(config.absolute())
    if "heartbeat_interval" not in settings.temporal.model_fields_set:
        chosen["HOSTLER_TEMPORAL__HEARTBEAT_INTERVAL"] = HEARTBEAT_INTERVAL
    return chosen


def hostler(*words: str) -> list[str]:
    """Our own command line, from the same Python environment."""
    beside = Path(sys.executable).with_name("hostler")
    program = str(beside) if beside.is_file() else shutil.which("hostler")
    if program is None:
        raise Unavailable("the `hostler` command is not installed", remedy="pip install hostler-server")
    return [program, *words]


async def hosts_up(settings: Settings, count: int) -> Sequence[str]:
    """Wait until the cloud answers and so many hosts are up and ready for servers. Their names.

    One that owes what it cannot do is not waited for.
    """
    await temporal_server.wait_ready(settings.temporal, READY_LIMIT)
    async with await Client.connect(settings) as client:
        began = time.monotonic()
        while True:
            with contextlib.suppress(HostlerError, TimeoutError):
                async with asyncio.timeout(10):
                    settling = time.monotonic() - began < SETTLING.total_seconds()
                    up = [host.name for host in await client.hosts.list() if host.up and not (host.owed and settling)]
                if len(up) >= count:
                    return up
            await asyncio.sleep(0.3)


async def run(plan: Plan, ready: Ready, say: Say | None = None) -> None:
    """Run the plan until SIGINT or SIGTERM; a second one ends it at once.

    Raises:
        OperationFailed: one of the first programs failed.
        Unavailable: the cloud did not become ready.
        OSError: a program cannot be started.
    """
    say = say or Printer(plan.names)
    signals = _Signals()
    began = time.monotonic()
    children = [Child(plan.server, say)]
    announcing = None
    try:
        for program in plan.first:  # while the server starts
            await _run_to_end(program, say)
        children += [Child(program, say) for program in plan.workers]
        announcing = asyncio.create_task(_announce(ready, say, began))
        await _until_first(signals.stop.wait(), *(child.ended() for child in children), _watch(announcing))
    finally:
        if announcing is not None:
            announcing.cancel()
        say(SUPERVISOR, "stopping: the workers finish what they can; press Ctrl-C again to kill them")
        await _stop(children, signals)
        say(SUPERVISOR, "stopped; what was begun goes on at the next start")


async def _run_to_end(program: Program, say: Say) -> None:
    process, output = await spawn(program)
    while line := await output.readline():
        say(program.name, line.decode(errors="replace").rstrip())
    code = await process.wait()
    if code:
        raise OperationFailed(f"`hostler {' '.join(program.command[1:])}` {outcome(code)}", remedy="see above why")


async def _announce(ready: Ready, say: Say, began: float) -> None:
    try:
        async with asyncio.timeout(READY_LIMIT.total_seconds()):
            text = await ready()
    except TimeoutError:
        seconds = READY_LIMIT.total_seconds()
        raise Unavailable(f"the cloud is not ready after {seconds:g} s", remedy="see above why") from None
    for line in [f"ready after {time.monotonic() - began:.1f} s", *text.splitlines()]:
        say(SUPERVISOR, line)


async def _watch(task: asyncio.Task[None]) -> None:
    """Raise what the task raises; do not end because it ended well."""
    await task
    await asyncio.Event().wait()


async def _until_first(*what: Awaitable[object]) -> None:
    """Wait until one of these ends, and raise what it raised."""
    tasks = [asyncio.ensure_future(one) for one in what]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _stop(children: Sequence[Child], signals: "_Signals") -> None:
    """The workers first: to give back what they hold, they need the server."""

    async def in_order() -> None:
        server, *workers = children
        await asyncio.gather(*(worker.stop(WORKER_GRACE) for worker in workers))
        await server.stop(SERVER_GRACE)

    def at_once() -> None:
        for child in children:
            child.kill()

    signals.on_second = at_once
    await in_order()


class _Signals:
    """The first SIGINT or SIGTERM sets `stop`; later ones call `on_second`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.on_second: Callable[[], None] = lambda: None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._received)

    def _received(self) -> None:
        if self.stop.is_set():
            self.on_second()
        self.stop.set()


def _owner(content: str) -> str:
    try:
        known: Mapping[str, object] = json.loads(content)
        return f": pid {known['pid']}, its UI is at {known['ui']}"
    except (ValueError, KeyError):
        return ""
