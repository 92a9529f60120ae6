"""Operations that take longer than they should."""

from datetime import timedelta

from hostler.contract.names import OVERDUE
from hostler.settings import OperationSettings
from tests.cloud import LIMIT
from tests.workflows.conftest import StartCloud

QUICKLY = OperationSettings(overdue={"boot": timedelta(seconds=0.5)})


async def test_an_operation_that_lasts_raises_an_alert_with_its_step_and_takes_it_back(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=QUICKLY)
    held = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    handle = cloud.temporal.get_workflow_handle(f"server:{boot.server_id}")

    await cloud.reached(boot, "overdue")

    assert (await handle.describe()).typed_search_attributes.get(OVERDUE)
    await cloud.noted(boot.server_id)
    steps = {event.step.name: event.step for event in await cloud.client.servers.events(boot.server_id)}
    assert "after 0.5 s still at spawn on sim-1" in (steps["overdue"].note or "")

    held.go_on.set()
    await boot.result(LIMIT)
    assert not (await handle.describe()).typed_search_attributes.get(OVERDUE)
    steps = {event.step.name: event.step for event in await cloud.client.servers.events(boot.server_id)}
    assert steps["spawn"].finished_at is not None
    assert "taken back when the operation ended" in (steps["overdue"].note or "")


async def test_it_tells_the_reason_of_a_step_that_temporal_tries_again_and_again(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=QUICKLY)
    cloud.stage.fail("allocate_ports", ConnectionError("the database is away"), times=3)
    boot = await cloud.boot()

    await boot.result(LIMIT)

    steps = {event.step.name: event.step for event in await cloud.client.servers.events(boot.server_id)}
    assert "still at allocate_ports" in (steps["overdue"].note or "")
    assert "the database is away" in (steps["overdue"].note or "")


async def test_an_operation_that_ends_in_time_raises_none(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=OperationSettings(overdue={"*": timedelta(minutes=1)}))
    boot = await cloud.boot()
    server = await boot.result(LIMIT)

    assert "overdue" not in [event.step.name for event in await cloud.client.servers.events(server.id)]
