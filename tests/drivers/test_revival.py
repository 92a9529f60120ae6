"""Daemons that die are started again: at once, and later each time if they die again."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest

from drivers import revival
from drivers.revival import Revival
from tests.stage import eventually


class Daemons:
    """Programs that sleep. `fails` is how often none starts; `dies_at_once`: the next, before all is done."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.fails = 0
        self.dies_at_once = False
        self.tries = 0
        self.revival = Revival("the sleeper", self.revive)

    def start(self) -> None:
        self.processes.append(subprocess.Popen(["sleep", "600"]))
        self.revival.watch("one", os.pidfd_open(self.processes[-1].pid))

    async def revive(self, key: str) -> None:
        assert key == "one"
        self.tries += 1
        if self.tries <= self.fails:
            raise RuntimeError("no room")
        self.start()
        if self.dies_at_once:
            self.dies_at_once = False
            self.kill()
            await asyncio.sleep(0.2)

    def more_than(self, count: int) -> bool:
        return len(self.processes) > count

    def kill(self) -> None:
        os.kill(self.processes[-1].pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revival, "FIRST_DELAY", timedelta(seconds=0.05))


@pytest.fixture
async def daemons() -> AsyncIterator[Daemons]:
    daemons = Daemons()
    daemons.start()
    yield daemons
    await daemons.revival.close()
    for process in daemons.processes:
        process.kill()
        process.wait()


async def test_who_dies_is_started_again_each_time(daemons: Daemons) -> None:
    for _ in range(3):
        before = len(daemons.processes)
        daemons.kill()
        await eventually(partial(daemons.more_than, before))


async def test_a_start_that_fails_is_tried_again(daemons: Daemons) -> None:
    daemons.fails = 3
    daemons.kill()
    await eventually(lambda: len(daemons.processes) == 2)
    assert daemons.tries == 4


async def test_who_is_found_dead_again_meanwhile_is_not_started_twice(daemons: Daemons) -> None:
    before = asyncio.all_tasks()
    for _ in range(3):
        daemons.revival.watch("one", None)
    assert len(asyncio.all_tasks() - before) == 1
    await eventually(lambda: len(daemons.processes) == 2)


async def test_who_dies_while_that_which_started_it_is_not_over_is_started_again(daemons: Daemons) -> None:
    daemons.dies_at_once = True
    daemons.kill()
    await eventually(lambda: len(daemons.processes) == 3)
    assert daemons.tries == 2


async def test_what_is_started_while_it_closes_is_not_watched(daemons: Daemons) -> None:
    await daemons.revival.close()
    handle = os.pidfd_open(daemons.processes[-1].pid)
    daemons.revival.watch("one", handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    daemons.revival.watch("one", None)
    await asyncio.sleep(0)
    assert daemons.tries == 0


async def test_who_is_found_dead_is_started(daemons: Daemons) -> None:
    daemons.revival.watch("one", None)
    await eventually(lambda: len(daemons.processes) == 2)


@pytest.mark.parametrize("how", ["pause", "forget"])
async def test_who_is_not_wanted_may_die(daemons: Daemons, how: str) -> None:
    getattr(daemons.revival, how)("one")
    daemons.kill()
    await asyncio.to_thread(daemons.processes[0].wait)
    await asyncio.sleep(0)
    assert daemons.tries == 0


async def test_closing_leaves_no_descriptor_open(daemons: Daemons) -> None:
    def descriptors() -> list[str]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names, not paths
        return [target for link in links if "pidfd" in (target := _target(link))]

    opened = len(descriptors())
    assert opened
    await daemons.revival.close()
    assert len(descriptors()) == opened - 1


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - its target is no path
    except FileNotFoundError:
        return ""
