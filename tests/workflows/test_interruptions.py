"""A boot that is cancelled, or whose host falls silent, at any step; its activities only record their calls."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.interfaces.servers import Limits
from hostler.contract.servers import StepStatus
from tests.workflows.fakes import INTERRUPTIBLE, Fakes, boot, check_undone, failure, released, steps


@pytest.fixture
async def fakes(temporal_server: str, namespace: str) -> AsyncIterator[Fakes]:
    """Workers that only record, and hosts that have a second to answer."""
    client = await Client.connect(temporal_server, namespace=namespace, data_converter=pydantic_data_converter)
    async with Fakes(client, Limits(host_answer=timedelta(seconds=1))).running() as fakes:
        yield fakes


@pytest.mark.sampled
@pytest.mark.parametrize("step", INTERRUPTIBLE)
async def test_a_step_during_which_the_boot_is_cancelled_is_the_last(fakes: Fakes, step: str) -> None:
    held = fakes.hold(step)
    handle = await boot(fakes)
    await held.reached.wait()
    await handle.cancel()
    held.go_on.set()

    await failure(handle)

    await check_undone(fakes, handle)


async def test_a_cancellation_during_the_first_step_undoes_the_row(fakes: Fakes) -> None:
    held = fakes.hold("accept")
    handle = await boot(fakes)
    await held.reached.wait()
    await handle.cancel()
    held.go_on.set()

    await failure(handle)

    assert fakes.names() == ["accept", "settle"]


async def test_a_host_that_takes_no_step_is_known_to_have_done_nothing(fakes: Fakes) -> None:
    await fakes.stop_host("node-1")
    handle = await boot(fakes)

    await handle.result()

    [silent] = [step for step in await steps(handle) if step.host == "node-1"]
    assert silent.error == "host node-1 does not answer; nothing ran there"
    assert silent.status is StepStatus.OWED
    assert fakes.names().count("owe") == 1


async def test_a_host_that_dies_after_a_try_may_have_got_somewhere(fakes: Fakes) -> None:
    held = fakes.hold("spawn")
    fakes.fail("spawn", RuntimeError("half-way"))
    handle = await boot(fakes)
    await held.reached.wait()
    await released(held, fakes.stop_host("node-1"))

    await handle.result()

    [silent] = [step for step in await steps(handle) if step.name == "spawn" and step.host == "node-1"]
    assert silent.error == "host node-1 does not answer, and an earlier try may have got somewhere"


async def test_a_silent_host_is_waited_for_once_and_owes_the_rest_at_once(fakes: Fakes) -> None:
    held = fakes.hold("bind_ports")
    handle = await boot(fakes)
    await held.reached.wait()
    await released(held, fakes.stop_host("node-1"))

    await handle.result()

    owed = [step for step in await steps(handle) if step.status is StepStatus.OWED]
    assert [step.name for step in owed] == ["claim_resources", "bind_ports", "spawn"]
    spawn = owed[-1]
    next_host = next(step for step in await steps(handle) if step.name == "schedule" and step.attempt == 2)
    assert spawn.started_at is not None
    assert next_host.started_at is not None
    waited = next_host.started_at - spawn.started_at
    assert fakes.limits.host_answer <= waited < 2 * fakes.limits.host_answer
