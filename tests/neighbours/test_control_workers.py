"""Two control workers share all the work, and one goes on alone when the other dies for good."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.neighbours.flight import SLOW_HOSTS, Flight
from tests.processes.cloud import ProcessCloud, process_cloud


@pytest.fixture(
    params=[pytest.param("sqlite", marks=pytest.mark.slow), pytest.param("postgres", marks=pytest.mark.postgres)]
)
async def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    """Two control workers on one database, SQLite and then PostgreSQL."""
    postgres = request.param == "postgres"
    async with process_cloud(tmp_path, hosts=(1, 1), controls=2, postgres=postgres, simulated=SLOW_HOSTS) as cloud:
        yield cloud


async def test_one_is_killed_in_the_middle_and_the_other_ends_everything(cloud: ProcessCloud) -> None:
    flight = await Flight.take_off(cloud)
    assert await _workers(flight) == 2, "both should have had a part"
    cloud.controls[0].kill()
    await flight.land()
    cloud.controls[0].start()


@pytest.mark.slow
async def test_each_is_killed_in_turn(cloud: ProcessCloud) -> None:
    flight = await Flight.take_off(cloud)
    for control in cloud.controls:
        control.restart()
    await flight.land()


async def _workers(flight: Flight) -> int:
    """How many control workers have done something for these operations."""
    identities = set()
    for operation in flight.operations.values():
        handle = flight.cloud.temporal_client.get_workflow_handle(
            f"server:{operation.server_id}", run_id=operation.run_id
        )
        async for event in handle.fetch_history_events():
            if event.HasField("workflow_task_started_event_attributes"):
                identities.add(event.workflow_task_started_event_attributes.identity)
    return len(identities)
