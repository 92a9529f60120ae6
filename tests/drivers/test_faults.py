"""Injected faults strike where, when and as often as the settings say."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from drivers.faults import KILLED, SimulatedFaults
from hostler.contract.errors import RescheduleError
from hostler.settings import SimulatedFault, SimulatedSettings


def faults(directory: Path, *given: SimulatedFault, host: str = "sim-1") -> SimulatedFaults:
    return SimulatedFaults(SimulatedSettings(faults=list(given)), host, directory)


async def test_a_reschedule_fault_is_the_refusal_of_a_real_host(tmp_path: Path) -> None:
    struck = faults(tmp_path, SimulatedFault(host="sim-1", call="spawn", message="out of huge pages"))
    with pytest.raises(RescheduleError, match="out of huge pages"):
        await struck.before("spawn")


async def test_an_error_fault_is_no_error_that_hostler_knows(tmp_path: Path) -> None:
    struck = faults(tmp_path, SimulatedFault(host="sim-1", call="spawn", kind="error"))
    with pytest.raises(RuntimeError, match="simulated fault"):
        await struck.before("spawn")


async def test_a_hanging_call_never_answers_but_can_be_cancelled(tmp_path: Path) -> None:
    struck = faults(tmp_path, SimulatedFault(host="sim-1", call="spawn", kind="hang"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await struck.before("spawn")


def test_a_kill_fault_ends_the_process_and_does_not_strike_the_next_one(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib
from drivers.faults import SimulatedFaults
from hostler.settings import SimulatedFault, SimulatedSettings
settings = SimulatedSettings(faults=[SimulatedFault(host="sim-1", call="spawn", kind="kill")])
asyncio.run(SimulatedFaults(settings, "sim-1", pathlib.Path({str(tmp_path)!r})).before("spawn"))
"""
    first, second = (subprocess.run([sys.executable, "-c", program], check=False) for _ in range(2))
    assert (first.returncode, second.returncode) == (KILLED, 0)


async def test_other_calls_and_other_hosts_are_spared(tmp_path: Path) -> None:
    fault = SimulatedFault(host="sim-1", call="spawn")
    await faults(tmp_path, fault).before("destroy")
    await faults(tmp_path, fault, host="sim-2").before("spawn")


async def test_a_host_may_be_given_as_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(RescheduleError):
        await faults(tmp_path, SimulatedFault(host="sim-*", call="spawn"), host="sim-7").before("spawn")


async def test_a_fault_strikes_as_often_as_told_then_the_next_one_is_due(tmp_path: Path) -> None:
    struck = faults(
        tmp_path,
        SimulatedFault(host="sim-1", call="spawn", times=2),
        SimulatedFault(host="sim-1", call="spawn", kind="error"),
    )
    for expected in (RescheduleError, RescheduleError, RuntimeError):
        with pytest.raises(expected):
            await struck.before("spawn")
    await struck.before("spawn")


async def test_minus_one_means_always(tmp_path: Path) -> None:
    struck = faults(tmp_path, SimulatedFault(host="sim-1", call="spawn", times=-1))
    for _ in range(5):
        with pytest.raises(RescheduleError):
            await struck.before("spawn")


async def test_latency_is_looked_up_by_call_then_by_star(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    settings = SimulatedSettings(latency={"spawn": timedelta(0), "*": timedelta(milliseconds=60)})
    slow = SimulatedFaults(settings, "sim-1", tmp_path)
    began = loop.time()
    await slow.before("spawn")
    assert loop.time() - began < 0.05
    began = loop.time()
    await slow.before("destroy")
    assert loop.time() - began >= 0.05


async def test_a_long_call_reports_on_its_way(tmp_path: Path) -> None:
    reports: list[str] = []
    slow = SimulatedFaults(SimulatedSettings(latency={"spawn": timedelta(seconds=1.1)}), "sim-1", tmp_path)
    await slow.before("spawn", reports.append)
    assert reports == ["0 of 1.1 simulated seconds"]
