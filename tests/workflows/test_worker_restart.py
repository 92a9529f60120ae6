"""Workers that stop and start again in the middle of things: nothing is lost, nothing is done twice."""

import asyncio

import pytest

from tests.cloud import Cloud

SERVER = "5e4f0000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("step", ["claim_resources", "spawn", "resume_guest"])
async def test_a_boot_goes_on_when_the_control_worker_is_back(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    held = cloud.stage.hold(step)
    boot = await cloud.boot()
    await held.reached.wait()
    await cloud.stop_control()
    held.go_on.set()
    await cloud.start_control()

    server = await boot.result()

    assert (server.status, server.host) == ("ACTIVE", "sim-1")
    assert cloud.stage.names().count(step) == 1
    await cloud.deleted(server.id)
    assert await cloud.world() == before


async def test_a_boot_that_is_asked_for_without_a_control_worker_begins_when_there_is_one(cloud: Cloud) -> None:
    await cloud.stop_control()
    booting = asyncio.create_task(cloud.boot(server_id=SERVER))
    await cloud.started(SERVER)
    await cloud.start_control()

    assert (await (await booting).result()).status == "ACTIVE"


async def test_a_delete_goes_on_when_the_control_worker_is_back(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold("destroy_guest")
    delete = await cloud.client.servers.delete(server.id)
    await held.reached.wait()
    await cloud.stop_control()
    held.go_on.set()
    await cloud.start_control()

    assert (await delete.result()).status == "DELETED"
    assert await cloud.world() == before


async def test_guests_and_claims_are_there_when_their_host_is_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")

    assert await cloud.world() == before
    assert "login:" in await cloud.client.servers.console_log(server.id)
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"


@pytest.mark.parametrize("step", ["claim_resources", "spawn"])
async def test_a_host_that_is_back_in_time_finishes_the_step(cloud: Cloud, step: str) -> None:
    held = cloud.stage.hold(step)
    boot = await cloud.boot()
    await held.reached.wait()
    await cloud.stop_host("sim-1")  # the step is given back, to be tried again
    await cloud.start_host("sim-1")

    server = await boot.result()

    assert (server.host, cloud.stage.names().count(step)) == ("sim-1", 2)
    assert (await cloud.world()).guests == {("sim-1", server.id)}
