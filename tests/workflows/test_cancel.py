"""Cancelled operations: what had been done is undone, whenever it was."""

import asyncio
from uuid import uuid4

import pytest

from hostler.contract.errors import Cancelled
from hostler.contract.servers import StepStatus
from tests.cloud import Cloud
from tests.workflows.test_delete import STEPS
from workflows.plugging import WAIT_VIF_PLUGGED

ACTIVATE = "activate"


@pytest.mark.sampled
@pytest.mark.parametrize("step", [step for step in STEPS if step != ACTIVATE])
async def test_a_boot_that_is_cancelled_is_undone(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server_id = str(uuid4())
    held = cloud.stage.hold(step)
    booting = asyncio.create_task(cloud.boot(server_id=server_id))
    await held.reached.wait()

    await cloud.temporal.get_workflow_handle(f"server:{server_id}").cancel(reason="not wanted")
    held.go_on.set()
    boot = await booting

    assert isinstance(await cloud.failure(boot), Cancelled)
    server = await cloud.client.servers.show(server_id)
    assert (server.status, server.task_state) == ("ERROR", None)
    assert server.fault is not None
    assert (server.fault.error.code, server.fault.error.message) == ("Cancelled", "the boot was cancelled: not wanted")
    assert (await cloud.world()).besides(server_id) == before.besides(server_id)
    await cloud.deleted(server_id)
    assert await cloud.world() == before


async def test_a_boot_whose_guest_runs_can_no_longer_be_cancelled(cloud: Cloud) -> None:
    held = cloud.stage.hold(ACTIVATE)
    boot = await cloud.boot()
    await held.reached.wait()

    await boot.cancel()
    held.go_on.set()

    server = await boot.result()
    assert server.status == "ACTIVE"
    assert (await cloud.world()).guests == {("sim-1", server.id)}


async def test_a_boot_that_waits_for_its_ports_can_be_cancelled(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await cloud.world()
    monkeypatch.setattr(cloud.machine("sim-1").network, "plug", lambda port_id: None)
    boot = await cloud.boot()
    await cloud.reached(boot, WAIT_VIF_PLUGGED)

    await boot.cancel()

    assert isinstance(await cloud.failure(boot), Cancelled)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


@pytest.mark.sampled
@pytest.mark.parametrize("undo", ["destroy_guest", "unbind_ports", "drop_claim", "release_allocation"])
async def test_a_cancellation_does_not_interrupt_the_leaving_of_a_host(cloud: Cloud, undo: str) -> None:
    before = await cloud.world()
    cloud.stage.fail("resume_guest", ValueError("it does not run"))
    held = cloud.stage.hold(undo)
    boot = await cloud.boot()
    await held.reached.wait()

    await boot.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(boot), Cancelled)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)
    assert cloud.stage.names().count("schedule") == 1


@pytest.mark.parametrize("undo", ["release_ports", "release_block_devices", "settle"])
async def test_a_cancellation_does_not_interrupt_the_undo_of_a_boot_that_gave_up(cloud: Cloud, undo: str) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", ValueError("it cannot be"))
    held = cloud.stage.hold(undo)
    boot = await cloud.boot(max_attempts=1)
    await held.reached.wait()

    await boot.cancel()
    held.go_on.set()
    await cloud.failure(boot)

    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)
    assert {s.status for s in (await cloud.progress(boot)).steps} <= {
        StepStatus.DONE,
        StepStatus.FAILED,
        StepStatus.UNDONE,
    }


@pytest.mark.parametrize("step", ["begin", "stop_guest"])
async def test_a_stop_that_is_cancelled_gives_the_server_back(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold(step)
    stopping = asyncio.create_task(cloud.client.servers.stop(server.id))
    await held.reached.wait()

    await cloud.temporal.get_workflow_handle(f"server:{server.id}").cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(await stopping), Cancelled)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.task_state, shown.fault) == ("ACTIVE", None, None)
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"
