"""The clock of a machine jumps by a day while operations run: they end as asked, and no host is thought to be dead."""

import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cloud import LIMIT
from tests.neighbours.flight import SLOW_HOSTS, Flight
from tests.processes.cloud import ProcessCloud, process_cloud
from tests.processes.process import Process
from workers import dev

DAY = timedelta(days=1)
SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of one process, which can be set."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._library = directory / "clock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True)
        self.shift(timedelta())

    @property
    def environment(self) -> dict[str, str]:
        """What gives a program this clock."""
        return {"LD_PRELOAD": str(self._library), "TEST_CLOCK": str(self._file)}

    def shift(self, by: timedelta) -> None:
        """Set it, compared to the true one."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(int(by.total_seconds()).to_bytes(8, "little", signed=True))

    def reading(self) -> datetime:
        """What a program that has it thinks the time is."""
        asked = subprocess.run(["date", "+%s"], env=self.environment, capture_output=True, check=True)
        return datetime.fromtimestamp(int(asked.stdout), UTC)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right, so far."""
    return Clock(tmp_path)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    """Two hosts, a process each."""
    async with process_cloud(tmp_path / "cloud", hosts=(1, 1), simulated=SLOW_HOSTS) as cloud:
        yield cloud


def give(clock: Clock, process: Process) -> None:
    """Start the process again, with this clock."""
    process.environment = {**process.environment, **clock.environment}
    process.restart()


def test_the_clock_can_be_set(clock: Clock) -> None:
    for shift in (DAY, -DAY):
        clock.shift(shift)
        difference = clock.reading() - datetime.fromtimestamp(time.time(), UTC)
        assert abs(difference - shift) < timedelta(minutes=1)


@pytest.mark.slow
@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["ahead", "back"])
@pytest.mark.parametrize(
    ("victim", "ready"),
    [
        pytest.param(lambda cloud: cloud.controls[0], "control worker ready", id="control worker"),
        pytest.param(lambda cloud: cloud.hosts[0], "registered", id="host worker"),
    ],
)
async def test_operations_do_not_notice_that_a_clock_jumps(
    cloud: ProcessCloud, clock: Clock, victim: Callable[[ProcessCloud], Process], ready: str, jump: timedelta
) -> None:
    process = victim(cloud)
    give(clock, process)
    process.said(ready, times=2)
    await dev.hosts_up(cloud.settings, 2)
    flight = await Flight.take_off(cloud)

    clock.shift(jump)
    await flight.land()

    assert all(host.up for host in await cloud.client.hosts.list())
    process.restart()  # and one that starts with a clock that is wrong
    process.said(ready, times=3)
    await dev.hosts_up(cloud.settings, 2)
    server = await cloud.booted("afterwards")
    assert await cloud.client.servers.console_log(server.id)
    assert (await (await cloud.client.servers.delete(server.id)).result(LIMIT)).status == "DELETED"
