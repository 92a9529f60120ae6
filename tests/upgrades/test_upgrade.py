"""A new release while operations are in flight: they end as asked, whichever code they began and ended under."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from hostler.client import Operation
from hostler.contract.servers import Hold, OnFailure
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.neighbours.flight import SLOW_HOSTS, Flight
from tests.processes.cloud import LIMIT, ProcessCloud, process_cloud
from tests.processes.process import Process
from tests.upgrades.next_release import STEP, Release, make_next_release

REPLAY = Path(__file__).with_name("replay.py")
STUCK = SimulatedFault(host="sim-1-1", call="spawn", message="no room", times=1)
DRAIN_S = 20
LONGER_THAN_THE_DRAIN = timedelta(seconds=12)


@pytest.fixture
def following(tmp_path: Path) -> Release:
    """The next release."""
    return make_next_release(tmp_path / "next")


@pytest.fixture
async def cloud(tmp_path: Path, following: Release) -> AsyncIterator[ProcessCloud]:
    """A cloud of this release, whose hosts take their time."""
    slow = SLOW_HOSTS.model_copy(update={"latency": {**SLOW_HOSTS.latency, "resume": timedelta(seconds=2)}})
    async with process_cloud(tmp_path / "cloud", hosts=(1, 1), simulated=slow) as cloud:
        yield cloud


async def test_operations_in_flight_end_under_the_next_control_worker(cloud: ProcessCloud, following: Release) -> None:
    flight = await Flight.take_off(cloud)

    await upgrade_control(cloud, following)

    boot = await cloud.boot("after")
    assert (await boot.result(LIMIT)).status == "ACTIVE"
    assert STEP in await steps(cloud, boot), "it is the next release that works now"
    await cloud.deleted(boot.server_id)
    await flight.land()
    await replays(cloud, following)


async def test_old_and_new_control_workers_share_the_work(cloud: ProcessCloud, following: Release) -> None:
    following.upgrade_database(cloud.controls[0])
    with started(following.of(cloud.controls[0], "control-next")):
        boots = [await cloud.boot(f"web-{number}") for number in range(6)]
        for server in await asyncio.gather(*(boot.result(LIMIT) for boot in boots)):
            assert server.status == "ACTIVE"


async def test_what_only_the_next_release_understands_waits_for_it(cloud: ProcessCloud, following: Release) -> None:
    [old] = cloud.controls
    following.upgrade_database(old)
    old.freeze()
    with started(following.of(old, "control-next")) as newer:
        boot = await cloud.boot()
        await cloud.reached(boot, "resume_guest")
        newer.kill()
        old.thaw()
        old.said("Nondeterminism")  # it got the run, has not this release's step, and lets it be

        newer.start()

        assert (await boot.result(LIMIT)).status == "ACTIVE"
        assert STEP in await steps(cloud, boot)
        await replays(cloud, following)


async def test_an_operation_that_holds_is_decided_under_the_next_release(tmp_path: Path, following: Release) -> None:
    simulated = SimulatedSettings(faults=[STUCK])
    async with process_cloud(tmp_path / "cloud", hosts=(1,), simulated=simulated) as cloud:
        boot = await cloud.boot(on_failure=OnFailure.HOLD, max_attempts=1)
        before = await holding(boot)

        await upgrade_control(cloud, following)

        assert await holding(boot) == before
        await cloud.client.operations.retry(boot.server_id)
        assert (await boot.result(LIMIT)).status == "ACTIVE"
        await replays(cloud, following)


async def test_an_old_control_worker_does_not_start_on_the_new_database(
    cloud: ProcessCloud, following: Release
) -> None:
    following.upgrade_database(cloud.controls[0])
    assert (await cloud.booted()).status == "ACTIVE", "one that runs goes on"

    cloud.controls[0].restart()

    await ended(cloud.controls[0])
    cloud.controls[0].said("it was upgraded by a newer version of Hostler")


async def test_a_host_worker_finishes_its_steps_before_it_is_replaced(cloud: ProcessCloud, following: Release) -> None:
    flight = await Flight.take_off(cloud)
    for number, host in enumerate(cloud.hosts):
        if not host.running:  # it is the one that is lost
            continue
        await drained(host)
        cloud.hosts[number] = newer = following.of(host, f"{host.name}-next")
        newer.start()
    await flight.land()


async def test_a_step_longer_than_the_drain_is_done_again_by_the_next_host_worker(
    tmp_path: Path, following: Release
) -> None:
    simulated = SimulatedSettings(latency={"spawn": LONGER_THAN_THE_DRAIN})
    async with process_cloud(tmp_path / "cloud", hosts=(1,), simulated=simulated) as cloud:
        boot = await cloud.boot()
        await cloud.reached(boot, "spawn")

        await drained(cloud.hosts[0])
        cloud.hosts[0] = following.of(cloud.hosts[0], "host-next")
        cloud.hosts[0].start()

        server = await boot.result(LIMIT)
        assert (server.status, server.host) == ("ACTIVE", "sim-1-1")
        [spawn] = [e.step for e in await cloud.client.servers.events(server.id) if e.step.name == "spawn"]
        assert spawn.attempt == 1, "the host was not left"


@contextmanager
def started(process: Process) -> Iterator[Process]:
    """The control worker, once it is ready; it is killed afterwards."""
    process.start()
    try:
        process.said("control worker ready")
        yield process
    finally:
        process.kill()


async def upgrade_control(cloud: ProcessCloud, release: Release) -> None:
    """As the runbook says: the database, the new control worker beside the old one, then the old one's end."""
    [old] = cloud.controls
    release.upgrade_database(old)
    newer = release.of(old, "control-next")
    newer.start()
    newer.said("control worker ready")
    await drained(old)
    cloud.controls[:] = [newer]


async def drained(process: Process) -> None:
    """SIGTERM, and return when it has ended by itself."""
    os.kill(process.pid, signal.SIGTERM)
    await ended(process)
    process.said("draining")


async def ended(process: Process) -> None:
    """Return when it has ended by itself."""
    async with asyncio.timeout(DRAIN_S):
        while process.running:  # noqa: ASYNC110 - it is no task of ours
            await asyncio.sleep(0.05)


async def holding(operation: Operation) -> Hold:
    """The hold at which the operation is, or arrives."""
    async for progress in operation.follow():
        if progress.hold is not None:
            return progress.hold
    raise AssertionError("it ended without a hold")


async def steps(cloud: ProcessCloud, operation: Operation) -> list[str]:
    """The names of the operation's steps, once it has ended."""
    return [e.step.name for e in await cloud.client.servers.events(operation.server_id) if e.run_id == operation.run_id]


async def replays(cloud: ProcessCloud, release: Release) -> None:
    """Every history of the cloud, of runs that began under either release, fits the newer one's workflows."""
    directory = cloud.directory / "histories"
    directory.mkdir()
    ids = []
    async for one in cloud.temporal_client.list_workflows():
        handle = cloud.temporal_client.get_workflow_handle(one.id, run_id=one.run_id)
        record = {"workflow_id": one.id, **(await handle.fetch_history()).to_json_dict()}
        (directory / f"{one.run_id}.json").write_text(json.dumps(record))
        ids.append(one.run_id)
    replayed = await asyncio.create_subprocess_exec(
        *(sys.executable, REPLAY, directory),
        env={**os.environ, **release.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await replayed.communicate()
    assert replayed.returncode == 0, errors.decode()
    assert len(output.splitlines()) == len(ids) > 0
