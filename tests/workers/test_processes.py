"""Child processes are kept running, end in order, and never outlive us."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from workers import processes
from workers.processes import Child, Printer, Program, outcome

GRACE = timedelta(seconds=5)


class Lines(list[tuple[str, str]]):
    """What was said, by whom."""

    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for who, line in self if who == name]


def python(code: str, name: str = "child") -> Program:
    return Program(name, [sys.executable, "-c", code])


async def until(condition: Callable[[], object], within: float = 10) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - other processes do not tell
            await asyncio.sleep(0.02)


SLEEPER = "import time; print('here', flush=True); time.sleep(600)"


async def test_output_of_both_kinds_is_shown_line_by_line_under_the_name() -> None:
    said = Lines()
    child = Child(
        python("import sys; print('out'); print('err', file=sys.stderr); print('x' * 2**21); print('end')"), said
    )
    await until(lambda: "end" in said.of("child"))
    await child.stop(GRACE)
    shown = said.of("child")
    assert {"out", "err"} <= set(shown)
    assert all(len(line) <= processes.LONGEST_LINE for line in shown)


async def test_who_dies_is_started_again_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_DELAY", timedelta(seconds=0.1))
    said = Lines()
    child = Child(python("raise SystemExit(3)"), said)
    await until(lambda: child.starts >= 3)
    await child.stop(GRACE)
    assert said.of("child")[:2] == [
        "ended with exit code 3; starting it again in 0.1 s",
        "ended with exit code 3; starting it again in 0.2 s",
    ]


async def test_who_is_killed_comes_back() -> None:
    said = Lines()
    child = Child(python(SLEEPER), said)
    await until(lambda: "here" in said.of("child"))
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: said.of("child").count("here") == 2)
    assert child.pid != first
    assert "was killed by SIGKILL; starting it again in 0.5 s" in said.of("child")
    await child.stop(GRACE)


async def test_stopping_is_asking_first() -> None:
    said = Lines()
    child = Child(
        python(f"import signal; signal.signal(signal.SIGTERM, lambda *_: exit(print('bye'))); {SLEEPER}"), said
    )
    await until(lambda: "here" in said.of("child"))
    await child.stop(GRACE)
    assert said.of("child") == ["here", "bye"]
    assert child.pid is None


async def test_who_does_not_listen_is_killed() -> None:
    said = Lines()
    child = Child(python(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"), said)
    await until(lambda: "here" in said.of("child"))
    await child.stop(timedelta(seconds=0.3))
    assert said.of("child")[-1] == "did not end within 0.3 s: killed"
    assert child.pid is None


async def test_stopping_works_also_between_two_starts_and_during_one() -> None:
    said = Lines()
    waiting, starting = Child(python("raise SystemExit(1)"), said), Child(python(SLEEPER), said)
    await starting.stop(GRACE)
    await until(lambda: said.of("child"))
    await waiting.stop(GRACE)
    assert (waiting.pid, starting.pid) == (None, None)


async def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await Child(Program("child", ["/nowhere/at-all"]), Lines()).ended()


async def test_a_daemon_that_holds_the_output_open_does_not_hold_us_up() -> None:
    said = Lines()
    daemon = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    child = Child(python(f"{daemon}; raise SystemExit(0)"), said)
    await until(lambda: any("exit code 0" in line for line in said.of("child")))
    await child.stop(GRACE)
    for pid in {int(line) for line in said.of("child") if line.isdigit()}:
        os.kill(pid, signal.SIGKILL)


async def test_children_are_in_sessions_of_their_own() -> None:
    said = Lines()
    child = Child(python(SLEEPER), said)
    await until(lambda: "here" in said.of("child"))
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid, "so a Ctrl-C at the terminal is ours alone"
    await child.stop(GRACE)


def test_children_die_with_us_even_when_we_are_killed() -> None:
    code = f"""
import asyncio, sys
from workers.processes import Child, Program
async def main():
    program = Program("child", [sys.executable, "-c", {SLEEPER!r}])
    child = Child(program, lambda name, line: print(child.pid, flush=True))
    await child.ended()
asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def test_how_a_process_ended_is_told_in_words() -> None:
    assert outcome(1) == "ended with exit code 1"
    assert outcome(-9) == "was killed by SIGKILL"


def test_names_are_columns_and_colours_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    show = Printer(["dev", "control"])
    show("dev", "ready")
    show("control", "draining")
    assert capsys.readouterr().err == "dev     | ready\ncontrol | draining\n"
