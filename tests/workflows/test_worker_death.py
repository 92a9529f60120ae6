"""Workers that die at once, as by a power cut: processes, ended by SIGKILL or by a fault in a driver's call."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import workflows.boot
from drivers.faults import KILLED
from hostler.contract.servers import StepStatus
from hostler.settings import Settings, SimulatedFault
from tests.cloud import Cloud
from tests.stage import eventually
from tests.workflows.conftest import StartCloud

HOSTLER = Path(sys.executable).with_name("hostler")


@asynccontextmanager
async def running(settings: Settings, worker: str, **simulated: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in a process of its own, killed at the end if it still lives. Its one host is sim-1."""
    host = {"driver": "simulated", "simulated": {"hosts": 1, **simulated}}
    temporal = settings.temporal.model_dump(mode="json") | {"heartbeat_interval": "PT1S"}
    environment = {
        "HOSTLER_STATE_DIR": str(settings.state_dir),
        "HOSTLER_TEMPORAL": json.dumps(temporal),
        "HOSTLER_HOST": json.dumps(host),
        "HOSTLER_SCHEDULER": settings.scheduler.model_dump_json(),
    }
    process = await asyncio.create_subprocess_exec(HOSTLER, "worker", worker, env=os.environ | environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """A cloud whose only host has been stopped, so that a process can take its place."""
    cloud = await start_cloud(hosts=1)
    await cloud.stop_host("sim-1")
    return cloud


async def registered(cloud: Cloud, stack: AsyncExitStack, **simulated: Any) -> asyncio.subprocess.Process:
    """The process of the host, once it has registered."""
    before = cloud.registered_at("sim-1")
    process = await stack.enter_async_context(running(cloud.settings, "host", **simulated))
    await eventually(lambda: cloud.registered_at("sim-1") != before)
    await cloud.registered("sim-1")
    return process


async def test_a_boot_outlives_the_control_worker(cloud: Cloud) -> None:
    before = await cloud.world()
    await cloud.stop_control()
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(running(cloud.settings, "control"))
        await registered(cloud, stack, latency={"spawn": "PT2S"})
        while not (await cloud.client.hosts.show("sim-1")).up:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
        boot = await cloud.boot()
        await cloud.reached(boot, "spawn")

        control.kill()
        await control.wait()
        await stack.enter_async_context(running(cloud.settings, "control"))

        server = await boot.result()
        assert (server.status, server.host) == ("ACTIVE", "sim-1")
        progress = await cloud.progress(boot)
        assert [step.status for step in progress.steps if step.name == "spawn"] == [StepStatus.DONE]
        await cloud.deleted(server.id)
        assert await cloud.world() == before


async def test_a_guest_outlives_its_hosts_worker(cloud: Cloud) -> None:
    before = await cloud.world()
    async with AsyncExitStack() as stack:
        host = await registered(cloud, stack)
        server = await cloud.booted()
        up = await cloud.world()

        host.kill()
        await host.wait()
        await registered(cloud, stack)

        assert await cloud.world() == up
        assert "login:" in await cloud.client.servers.console_log(server.id)
        await cloud.deleted(server.id)
        assert await cloud.world() == before


@pytest.mark.parametrize(("step", "call"), [("SPAWN", "spawn"), ("RESUME", "resume")])
async def test_a_boot_goes_on_where_a_host_that_died_had_got_to(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, step: str, call: str
) -> None:
    before = await cloud.world()
    definition = replace(getattr(workflows.boot, step), timeout=timedelta(seconds=4), heartbeat=None)
    monkeypatch.setattr(workflows.boot, step, definition)
    power_cut = SimulatedFault(host="sim-1", call=call, kind="kill").model_dump(mode="json")
    async with AsyncExitStack() as stack:
        host = await registered(cloud, stack, faults=[power_cut])
        boot = await cloud.boot()
        assert await host.wait() == KILLED
        await registered(cloud, stack, faults=[power_cut])

        server = await boot.result()

        assert (server.status, server.host) == ("ACTIVE", "sim-1")
        assert (await cloud.world()).guests == {("sim-1", server.id)}
        await cloud.deleted(server.id)
        assert await cloud.world() == before
