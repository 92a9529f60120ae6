"""The simulated network keeps the promises of the real one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from drivers.network.base import Plugged
from drivers.network.simulated import SimulatedNetwork
from hostler.contract.errors import RescheduleError
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.drivers.network.conftest import Network

BLUE = Network(1)
PORT = BLUE.port(10)
REPORT = Plugged(port_id=PORT.port_id, server_id=PORT.server_id)


@pytest.fixture
def network(tmp_path: Path) -> SimulatedNetwork:
    return SimulatedNetwork(SimulatedSettings(), "sim-1", tmp_path)


def follow(network: SimulatedNetwork) -> aclosing[AsyncGenerator[Plugged]]:
    """The reports, closed at the end of the block."""
    return aclosing(network.plugged())


async def test_a_port_that_was_plugged_before_anybody_asked(network: SimulatedNetwork) -> None:
    await network.bind(PORT)
    network.plug(PORT.port_id)
    async with follow(network) as reports:
        assert await anext(reports) == REPORT


@pytest.mark.parametrize("tap_first", [True, False])
async def test_a_port_that_becomes_plugged_later(network: SimulatedNetwork, tap_first: bool) -> None:
    async with follow(network) as reports, asyncio.timeout(10):
        next_one = asyncio.ensure_future(anext(reports))
        await asyncio.sleep(0)
        if tap_first:
            network.plug(PORT.port_id)
            await network.bind(PORT)
        else:
            await network.bind(PORT)
            network.plug(PORT.port_id)
        assert await next_one == REPORT


async def test_again_when_the_guest_was_started_again(network: SimulatedNetwork) -> None:
    await network.bind(PORT)
    network.plug(PORT.port_id)
    async with follow(network) as reports, asyncio.timeout(10):
        await anext(reports)
        network.unplug(PORT.port_id)
        network.plug(PORT.port_id)
        assert await anext(reports) == REPORT


async def test_everybody_who_follows_hears_of_it(network: SimulatedNetwork) -> None:
    async with follow(network) as one, follow(network) as other, asyncio.timeout(10):
        heard = [asyncio.ensure_future(anext(one)), asyncio.ensure_future(anext(other))]
        await asyncio.sleep(0)
        await network.bind(PORT)
        network.plug(PORT.port_id)
        assert await asyncio.gather(*heard) == [REPORT, REPORT]


async def test_bound_ports_survive_the_process(network: SimulatedNetwork, tmp_path: Path) -> None:
    await network.bind(PORT)
    successor = SimulatedNetwork(SimulatedSettings(), "sim-1", tmp_path)
    assert await successor.ports() == [PORT]
    successor.plug(PORT.port_id)
    async with follow(successor) as reports:
        assert await anext(reports) == REPORT


async def test_both_calls_may_be_repeated(network: SimulatedNetwork) -> None:
    for _ in range(2):
        await network.bind(PORT)
    for _ in range(2):
        await network.unbind(PORT.port_id)
    assert await network.ports() == []


async def test_a_fault_strikes_before_anything_is_bound(tmp_path: Path) -> None:
    faulty = SimulatedSettings(faults=[SimulatedFault(host="sim-*", call="bind")])
    network = SimulatedNetwork(faulty, "sim-1", tmp_path)
    with pytest.raises(RescheduleError):
        await network.bind(PORT)
    assert await network.ports() == []
    await network.bind(PORT)


async def test_closing_ends_the_reports(network: SimulatedNetwork) -> None:
    async with follow(network) as reports:
        next_one = asyncio.ensure_future(anext(reports))
        await asyncio.sleep(0)
        await network.close()
        with pytest.raises(StopAsyncIteration):
            await next_one
