"""`hostler dev`: one command is a cloud; it comes back whatever is killed, and leaves nothing behind when it ends."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hostler.contract.errors import Conflict
from hostler.settings import Settings, TemporalSettings
from tests.conftest import free_port
from workers import dev
from workers.processes import Program

ROOT = Path(__file__).parents[2]
# A cloud of stand-ins: each says when it starts and when it is asked to end.
STAND_IN = """
import signal, sys, time
name = sys.argv[1]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(name, "asked to end", flush=True)))
print(name, "runs", flush=True)
time.sleep(600)
"""
SUPERVISOR = """
import asyncio, sys
from workers.dev import Plan, run
from workers.processes import Program
def stand_in(name):
    return Program(name, [sys.executable, "-c", sys.argv[1], name])
async def ready():
    {ready}
    return "create a server"
first = Program("first", [sys.executable, "-c", "{first}"])
asyncio.run(run(Plan([first], stand_in("server"), [stand_in("control"), stand_in("host")]), ready))
"""


class Run:
    """A supervisor in a process of its own; its output, as far as it was read."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(environment or {})}
        )
        self.output = ""

    def until(self, text: str, count: int = 1) -> str:
        """Read until some text was written `count` times; the last line that has it."""
        assert self.process.stderr is not None
        while self.output.count(text) < count:
            line = self.process.stderr.readline()
            assert line, f"{text!r} was not written:\n{self.output}"
            self.output += line
        return next(line for line in reversed(self.output.splitlines()) if text in line)

    def end(self) -> int:
        """Read the rest; the exit code."""
        assert self.process.stderr is not None
        self.output += self.process.stderr.read()
        return self.process.wait(30)

    def family(self) -> list[psutil.Process]:
        """The children that run now."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextlib.contextmanager
def supervised(ready: str = "pass", first: str = "pass") -> Iterator[Run]:
    run = Run([sys.executable, "-c", SUPERVISOR.format(ready=ready, first=first), STAND_IN])
    try:
        yield run
    finally:
        run.process.kill()
        run.end()


def gone(processes: list[psutil.Process], within: float = 5) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(lives(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class TestWithStandIns:
    def test_it_says_when_it_is_ready_and_what_to_do_next(self) -> None:
        with supervised() as run:
            run.until("create a server")
            assert re.search(r"dev +\| ready after [\d.]+ s\n", run.output)

    def test_ctrl_c_ends_the_workers_first_then_the_server(self) -> None:
        with supervised() as run:
            for name in ("server", "control", "host"):
                run.until(f"{name} runs")
            family = run.family()
            run.process.send_signal(signal.SIGINT)
            assert run.end() == 0
            asked = re.findall(r"(\w+) asked to end", run.output)
            assert sorted(asked[:2]) == ["control", "host"]
            assert asked[2:] == ["server"]
            assert gone(family)

    def test_what_dies_comes_back(self) -> None:
        with supervised() as run:
            run.until("host runs")
            victim = next(p for p in run.family() if p.cmdline()[-1] == "host")
            victim.kill()
            assert "was killed by SIGKILL; starting it again" in run.until("was killed")
            run.until("host runs", count=2)

    def test_nothing_outlives_a_killed_supervisor(self) -> None:
        with supervised() as run:
            run.until("host runs")
            family = run.family()
            assert len(family) == 3
            run.process.kill()
            assert gone(family)

    def test_a_second_ctrl_c_does_not_wait(self) -> None:
        stubborn = STAND_IN.replace("sys.exit(", "(")
        run = Run([sys.executable, "-c", SUPERVISOR.format(ready="pass", first="pass"), stubborn])
        run.until("host runs")
        run.until("control runs")
        run.process.send_signal(signal.SIGINT)
        run.until("asked to end", count=2)
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        run.end()
        assert time.monotonic() - began < 3

    def test_when_a_first_step_fails_nothing_is_left_running(self) -> None:
        with supervised(first="raise SystemExit('no such table')") as run:
            assert run.end() == 1
            assert "no such table" in run.output
            assert "control runs" not in run.output
            assert "ended with exit code 1" in run.output

    def test_when_it_does_not_become_ready_it_says_so_and_ends(self) -> None:
        with supervised(ready="raise TimeoutError") as run:
            assert run.end() == 1
            assert "the cloud is not ready after 120 s" in run.output


def settings(state_dir: Path) -> Settings:
    return Settings(
        state_dir=state_dir,
        temporal=TemporalSettings(
            address=f"127.0.0.1:{free_port()}", ui_url=f"http://127.0.0.1:{free_port()}", namespace="cloud"
        ),
    )


def test_a_second_one_in_the_same_directory_is_told_who_runs_the_first(tmp_path: Path) -> None:
    ours = settings(tmp_path / "state")
    with dev.lock(ours):
        with pytest.raises(Conflict) as caught, dev.lock(ours):
            pytest.fail("two at once")
        assert f"pid {os.getpid()}, its UI is at {ours.temporal.ui_url}" in str(caught.value)
        with dev.lock(settings(tmp_path / "another")):
            pass
    with dev.lock(ours):
        pass


def programs(ours: Settings, libvirt: bool, simulated: int) -> dict[str, Program]:
    return {program.name: program for program in dev.plan(ours, None, libvirt=libvirt, simulated=simulated).workers}


def test_hosts_are_run_as_asked(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    assert list(programs(ours, libvirt=True, simulated=0)) == ["control", "codec", "host"]
    assert list(programs(ours, libvirt=False, simulated=3)) == ["control", "codec", "simulated"]
    both = programs(ours, libvirt=True, simulated=2)
    assert list(both) == ["control", "codec", "host", "simulated"]
    assert both["host"].environment["HOSTLER_HOST__DRIVER"] == "libvirt"
    assert both["simulated"].environment["HOSTLER_HOST__DRIVER"] == "simulated"
    assert both["simulated"].environment["HOSTLER_HOST__SIMULATED__HOSTS"] == "2"


def test_children_read_the_settings_that_we_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = settings(tmp_path).model_copy(update={"project": "mine"})
    for name, value in dev.environment(ours, None).items():
        monkeypatch.setenv(name, value)
    theirs = Settings()
    assert (theirs.state_dir, theirs.project) == (ours.state_dir, "mine")
    assert theirs.temporal.address == ours.temporal.address
    assert theirs.temporal.heartbeat_interval.total_seconds() == 2, "which nobody had chosen"


class TestForReal:
    """A cloud of simulated hosts, as a newcomer would start it."""

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        return {
            "HOSTLER_STATE_DIR": str(tmp_path / "state"),
            "HOSTLER_TEMPORAL__ADDRESS": f"127.0.0.1:{free_port()}",
            "HOSTLER_TEMPORAL__UI_URL": f"http://127.0.0.1:{free_port()}",
        }

    def hostler(self, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        command = [*dev.hostler(*words)]
        return subprocess.run(
            command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def test_a_cloud_starts_survives_a_kill_and_ends(self, environment: dict[str, str]) -> None:
        cloud = Run(dev.hostler("dev", "--no-libvirt", "--simulated", "2"), environment)
        try:
            cloud.until("ready after")
            assert "sim-1, sim-2" in cloud.until("hosts ")
            of_control, of_hosts = re.findall(r"http://\S+/metrics", cloud.until("metrics "))
            assert "hostler_census_timestamp_seconds" in self.scraped(of_control)
            assert "temporal_num_pollers" in self.scraped(of_hosts)

            second = self.hostler(environment, "dev", "--no-libvirt")
            assert second.returncode == 4
            assert f"pid {cloud.process.pid}" in second.stderr

            family = cloud.family()
            self._one(family, "control").kill()
            cloud.until("control worker ready", count=2)
            self._one(cloud.family(), "start-dev").kill()
            cloud.until("temporal  | was killed by SIGKILL")
            assert self._eventually(lambda: self._hosts_up(environment) == {"sim-1", "sim-2"}), cloud.output

            began = time.monotonic()
            family = cloud.family()
            cloud.process.send_signal(signal.SIGTERM)
            assert cloud.end() == 0
            assert time.monotonic() - began < 12
            assert gone(family)
        finally:
            cloud.process.kill()
            cloud.end()

    def scraped(self, url: str) -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def _one(self, family: list[psutil.Process], word: str) -> psutil.Process:
        return next(process for process in family if word in process.cmdline())

    def _hosts_up(self, environment: dict[str, str]) -> set[str]:
        answer = self.hostler(environment, "host", "list", "--format", "json")
        return {host["name"] for host in json.loads(answer.stdout) if host["up"]} if answer.returncode == 0 else set()

    def _eventually(self, condition: Callable[[], bool], within: float = 60) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.5)
        return False
