"""Temporal is killed in the middle of everything: what was accepted ends as asked, once it is back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from hostler.contract.errors import Unavailable
from tests.neighbours.flight import SLOW_HOSTS, Flight, persistently
from tests.processes.cloud import LIMIT, ProcessCloud, process_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    """Two hosts, a process each."""
    async with process_cloud(tmp_path, hosts=(1, 1), simulated=SLOW_HOSTS) as cloud:
        yield cloud


@pytest.mark.slow
async def test_every_operation_survives_a_kill_of_temporal(cloud: ProcessCloud) -> None:
    flight = await Flight.take_off(cloud)
    cloud.temporal.restart()
    await flight.land()


async def test_steps_that_end_while_temporal_is_away_are_not_lost(cloud: ProcessCloud) -> None:
    flight = await Flight.take_off(cloud)
    cloud.temporal.kill()
    await asyncio.sleep(5)  # an outage of this length, in which every step ends; no synchronisation
    cloud.temporal.start()
    await flight.land()


async def test_whoever_is_told_unavailable_repeats_the_call_and_gets_one_server(cloud: ProcessCloud) -> None:
    before = await cloud.settled()
    server_id = str(uuid4())
    cloud.temporal.kill()
    with pytest.raises(Unavailable, match="Temporal"):
        await cloud.boot(server_id=server_id)
    cloud.temporal.start()

    first, second = [await persistently(lambda: cloud.boot(server_id=server_id)) for _ in range(2)]

    assert first.run_id == second.run_id
    assert (await first.result(LIMIT)).status == "ACTIVE"
    assert len((await cloud.world()).guests) == 1
    await cloud.deleted(server_id)
    assert await cloud.settled() == before
