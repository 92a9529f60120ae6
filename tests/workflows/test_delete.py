"""Delete: at any moment, in the middle of anything, and nothing stays behind."""

import asyncio
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError

from hostler import Client
from hostler.contract.errors import InvalidState, NotFound, Preempted
from hostler.contract.servers import OperationName, StepStatus
from tests.cloud import Cloud
from tests.stage import eventually
from workflows.boot import PLANNED
from workflows.delete import PLANNED as DELETE_STEPS
from workflows.plugging import WAIT_VIF_PLUGGED

# Taken from the boot's own plan, so that a new step is covered on the day on which it is written.
STEPS = [step for step in (*PLANNED, "set_task_state") if step != WAIT_VIF_PLUGGED]


@pytest.mark.sampled
@pytest.mark.parametrize("step", STEPS)
async def test_a_delete_in_the_middle_of_a_boot_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server_id = str(uuid4())
    held = cloud.stage.hold(step)
    booting = asyncio.create_task(cloud.boot(server_id=server_id))
    await held.reached.wait()

    deleting = asyncio.create_task(cloud.client.servers.delete(server_id))
    await cloud.updated(server_id, times=2)
    held.go_on.set()
    boot, delete = await booting, await deleting

    assert (delete.preempts, delete.run_id) == (OperationName.BOOT, boot.run_id)
    assert isinstance(await cloud.failure(boot), Preempted)
    server = await delete.result()
    assert (server.status, server.host, server.task_state) == ("DELETED", None, None)
    assert await cloud.world() == before


async def test_a_delete_while_a_boot_waits_for_its_ports_leaves_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await cloud.world()
    monkeypatch.setattr(cloud.machine("sim-1").network, "plug", lambda port_id: None)
    boot = await cloud.boot()
    await cloud.reached(boot, WAIT_VIF_PLUGGED)

    delete = await cloud.client.servers.delete(boot.server_id)

    assert isinstance(await cloud.failure(boot), Preempted)
    assert (await delete.result()).status == "DELETED"
    assert await cloud.world() == before


@pytest.mark.sampled
@pytest.mark.parametrize("undo", ["destroy_guest", "unbind_ports", "drop_claim", "release_allocation"])
async def test_a_delete_while_a_boot_leaves_a_host_leaves_nothing(cloud: Cloud, undo: str) -> None:
    before = await cloud.world()
    cloud.stage.fail("resume_guest", ValueError("it does not run"))
    held = cloud.stage.hold(undo)
    boot = await cloud.boot()
    await held.reached.wait()

    delete = await cloud.client.servers.delete(boot.server_id)
    held.go_on.set()

    assert isinstance(await cloud.failure(boot), Preempted)
    assert (await delete.result()).status == "DELETED"
    assert await cloud.world() == before
    assert cloud.stage.names().count("schedule") == 1
    assert cloud.stage.names().count("owe") == 0


async def test_a_delete_while_a_boot_gives_up_leaves_nothing(cloud: Cloud) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", ValueError("it cannot be"), times=3)
    held = cloud.stage.hold("settle")
    boot = await cloud.boot()
    await held.reached.wait()

    delete = await cloud.client.servers.delete(boot.server_id)
    held.go_on.set()

    assert (await delete.result()).status == "DELETED"
    assert isinstance(await cloud.failure(boot), Preempted)
    assert await cloud.world() == before


@pytest.mark.parametrize("step", ["begin", "stop_guest", "settle"])
async def test_a_delete_in_the_middle_of_a_stop_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    stopping = asyncio.create_task(cloud.client.servers.stop(server.id))
    await held.reached.wait()

    deleting = asyncio.create_task(cloud.client.servers.delete(server.id))
    await cloud.updated(server.id, times=2)
    held.go_on.set()
    stop, delete = await stopping, await deleting

    assert isinstance(await cloud.failure(stop), Preempted)
    assert (delete.preempts, (await delete.result()).status) == (OperationName.STOP, "DELETED")
    assert await cloud.world() == before


async def test_a_delete_is_not_turned_away_by_an_operation_that_is_being_refused(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold("begin")
    starting = asyncio.create_task(cloud.client.servers.start(server.id))
    await held.reached.wait()

    deleting = asyncio.create_task(cloud.client.servers.delete(server.id))
    await cloud.updated(server.id, times=2)
    held.go_on.set()

    with pytest.raises(InvalidState):
        await starting
    assert (await (await deleting).result()).status == "DELETED"
    assert await cloud.world() == before


async def test_a_second_delete_joins_the_one_that_runs(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("destroy_guest")
    first = await cloud.client.servers.delete(server.id)
    await held.reached.wait()

    second = await cloud.client.servers.delete(server.id)
    held.go_on.set()

    assert (second.run_id, second.preempts) == (first.run_id, None)
    assert await first.result() == await second.result()
    assert cloud.stage.names().count("destroy_guest") == 1


async def test_two_deletes_in_the_middle_of_a_boot_are_one(cloud: Cloud) -> None:
    before = await cloud.world()
    held = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await held.reached.wait()

    deletes = [await cloud.client.servers.delete(boot.server_id) for _ in range(2)]
    held.go_on.set()

    servers = [await delete.result() for delete in deletes]
    assert servers[0] == servers[1]
    assert await cloud.world() == before


async def test_a_server_that_is_not_there_cannot_be_deleted(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.deleted(server.id)

    for server_id in (server.id, str(uuid4())):
        with pytest.raises(NotFound):
            await cloud.client.servers.delete(server_id)


async def test_the_history_of_a_deleted_server_is_kept(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.deleted(server.id)

    events = [e for e in await cloud.client.servers.events(server.id) if e.operation is OperationName.DELETE]
    assert [event.step.name for event in events] == list(DELETE_STEPS)
    assert {event.step.status for event in events} == {StepStatus.DONE}
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.addresses, shown.devices) == ("DELETED", [], [])
    assert shown.deleted_at is not None


async def test_a_server_whose_host_is_silent_is_deleted_and_its_guest_when_the_host_returns(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    await cloud.stop_host("sim-1")

    assert (await cloud.deleted(server.id)).status == "DELETED"

    world = await cloud.world()
    assert world.owed == {("sim-1", work) for work in ("destroy_guest", "unbind_ports", "drop_claim")}
    assert (world.quota, world.ports, world.allocations) == (before.quota, before.ports, before.allocations)
    await cloud.start_host("sim-1")
    assert await cloud.world() == before


async def test_a_host_that_cannot_destroy_a_guest_owes_it_and_keeps_what_the_guest_uses(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    cloud.stage.fail("destroy_guest", ValueError("it will not die"))

    assert (await cloud.deleted(server.id)).status == "DELETED"

    world = await cloud.world()
    assert world.owed == {("sim-1", "destroy_guest"), ("sim-1", "unbind_ports"), ("sim-1", "drop_claim")}
    assert world.claims == world.bound_ports == world.guests == {("sim-1", server.id)}
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    assert await cloud.world() == before


@pytest.mark.parametrize("step", ["destroy_guest", "release_ports", "release_allocation"])
async def test_a_delete_that_has_begun_cannot_be_cancelled(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    delete = await cloud.client.servers.delete(server.id)
    await held.reached.wait()

    await delete.cancel()
    held.go_on.set()

    assert (await delete.result()).status == "DELETED"
    assert await cloud.world() == before


@pytest.mark.parametrize("step", ["begin", "finish_delete"])
async def test_the_first_and_the_last_step_of_a_delete_are_never_left_half_done(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    deleting = asyncio.create_task(cloud.client.servers.delete(server.id))
    await held.reached.wait()
    await cloud.temporal.get_workflow_handle(f"server:{server.id}").cancel()
    held.go_on.set()
    await asyncio.wait([deleting])
    await eventually_idle(cloud, server.id)

    row = cloud.row(server.id)
    assert row is not None
    assert (row.operation_id, row.task_state) == (None, None)
    if row.deleted_at is None:
        await cloud.deleted(server.id)
    assert await cloud.world() == before


async def eventually_idle(cloud: Cloud, server_id: str) -> None:
    """Return when no operation runs on the server."""
    operation = await cloud.client.servers.operation(server_id)
    await asyncio.gather(operation.result(), return_exceptions=True)
    await eventually(lambda: not cloud.stage.under_way)


async def test_a_delete_from_another_project_does_not_find_the_server(cloud: Cloud) -> None:
    held = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await held.reached.wait()
    async with await Client.connect(cloud.settings, project="theirs") as stranger:
        with pytest.raises(NotFound):
            await stranger.servers.delete(boot.server_id)
    held.go_on.set()
    assert (await boot.result()).status == "ACTIVE"


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["release_ports", "release_block_devices", "release_allocation", "finish_delete"])
async def test_a_delete_goes_on_where_the_control_plane_fails_for_good(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    cloud.stage.fail(step, ApplicationError("a defect", non_retryable=True))

    await cloud.deleted(server.id)

    assert await cloud.world() == before
