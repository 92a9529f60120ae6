"""What a boot decides, and when: on a server that skips time, with activities that only record their calls."""

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

import workflows.block_devices
import workflows.boot
from hostler.contract.errors import BuildFailed, OperationFailed, RescheduleError, from_application_error
from hostler.contract.names import CONTROL_QUEUE, server_workflow_id
from hostler.contract.servers import BootRequest, Progress, Server, Step, StepStatus
from tests.workflows.fakes import Fakes, a_request, released
from workflows.boot import PLANNED
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.steps import StepDefinition

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEST_SERVER = Path(sys.executable).with_name("temporal-test-server")
UNDOS = {
    step.name: step.undo.__name__
    for module in (workflows.boot, workflows.block_devices)
    for step in vars(module).values()
    if isinstance(step, StepDefinition) and step.undo is not None
}
# What stays when the host changes, and so is undone after all that is bound to the host.
KEPT = ("allocate_ports", "prep_block_devices", "create_volume_data", "export_volume")
STEPS = [*(step for step in PLANNED if step not in ("accept", WAIT_VIF_PLUGGED)), "set_task_state", *KEPT[2:]]
INTERRUPTIBLE = [step for step in STEPS if step != "activate"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server that skips time."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(TEST_SERVER), data_converter=pydantic_data_converter
    ) as environment:
        yield environment


@pytest_asyncio.fixture(loop_scope="module")
async def fakes(environment: WorkflowEnvironment) -> AsyncIterator[Fakes]:
    """Workers that only record."""
    async with Fakes(environment.client).running() as fakes:
        yield fakes


Boot = WorkflowHandle[Any, Server]


async def boot(fakes: Fakes, request: BootRequest | None = None) -> Boot:
    """Begin to build a server."""
    request = request or a_request()
    return await fakes.client.start_workflow(
        "boot", request, id=server_workflow_id(request.server_id), task_queue=CONTROL_QUEUE, result_type=Server
    )


async def failure(handle: Boot) -> BaseException | None:
    """What it failed with."""
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause = caught.value.cause
    return (from_application_error(cause) or cause) if isinstance(cause, ApplicationError) else cause


async def steps(handle: Boot) -> list[Step]:
    """Its steps, in the order in which they began."""
    progress: Progress = await handle.query("progress", result_type=Progress)
    return progress.steps


async def check_undone(fakes: Fakes, handle: Boot) -> None:
    """Exactly what was begun has been undone, last first: what is bound to the host, then the rest."""
    begun = [step.name for step in await steps(handle) if step.name in UNDOS]
    bound = [UNDOS[name] for name in reversed(begun) if name not in KEPT]
    kept = [UNDOS[name] for name in reversed(begun) if name in KEPT]
    assert [name for name in fakes.names() if name in UNDOS.values()] == bound + kept
    assert fakes.names()[-1] == "settle"


async def test_a_boot_that_works_undoes_nothing(fakes: Fakes) -> None:
    assert (await (await boot(fakes)).result()).vm_state == "active"
    assert not set(UNDOS.values()) & set(fakes.names())
    assert set(STEPS) <= set(fakes.names())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "error", [RescheduleError("no"), OperationFailed("no"), ValueError("no")], ids=lambda e: type(e).__name__
)
async def test_a_step_that_fails_has_all_undone_that_was_begun(fakes: Fakes, step: str, error: Exception) -> None:
    fakes.fail(step, error, times=3)
    handle = await boot(fakes, a_request(max_attempts=1))

    assert await failure(handle)

    await check_undone(fakes, handle)


@pytest.mark.parametrize("step", ["claim_resources", "fetch_image", "bind_ports", "spawn", "resume_guest"])
async def test_a_step_that_breaks_on_a_host_is_tried_three_times_there(fakes: Fakes, step: str) -> None:
    fakes.fail(step, RuntimeError("no"), times=3)

    await (await boot(fakes)).result()

    assert [host for name, host in fakes.calls if name == step] == ["node-1"] * 3 + ["node-2"]


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


async def test_a_port_that_is_not_plugged_in_time_sends_the_boot_to_the_next_host(fakes: Fakes) -> None:
    fakes.plug_at = None
    handle = await boot(fakes)

    error = await failure(handle)

    assert isinstance(error, BuildFailed)
    assert [(one.host, one.step) for one in error.detail.attempts] == [
        (f"node-{number}", WAIT_VIF_PLUGGED) for number in (1, 2, 3)
    ]
    assert "within 60 s" in error.detail.attempts[0].reason


async def test_a_port_that_is_plugged_before_anybody_waits_is_plugged(fakes: Fakes) -> None:
    fakes.plug_at = "bind_ports"
    handle = await boot(fakes)

    await handle.result()

    [waited] = [step for step in await steps(handle) if step.name == WAIT_VIF_PLUGGED]
    assert waited.finished_at == waited.started_at


async def test_a_port_that_was_plugged_on_a_former_host_is_not_plugged_on_this_one(fakes: Fakes) -> None:
    fakes.fail("resume_guest", RescheduleError("no"))
    handle = await boot(fakes)

    await handle.result()

    assert [host for name, host in fakes.calls if name == "spawn"] == ["node-1", "node-2"]
    assert [step.host for step in await steps(handle) if step.name == WAIT_VIF_PLUGGED] == ["node-1", "node-2"]


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


async def test_an_undo_is_tried_again_before_it_is_owed(fakes: Fakes) -> None:
    fakes.fail("spawn", RescheduleError("no"))
    fakes.fail("drop_claim", RuntimeError("not now"), times=4)
    handle = await boot(fakes)

    await handle.result()

    assert fakes.names().count("drop_claim") == 5
    assert "owe" not in fakes.names()


async def test_an_undo_that_a_host_cannot_do_is_owed_and_the_others_are_done(fakes: Fakes) -> None:
    fakes.fail("spawn", RescheduleError("no"))
    fakes.fail("unbind_ports", RuntimeError("never"), times=5)
    handle = await boot(fakes)

    await handle.result()

    assert [step.name for step in await steps(handle) if step.status is StepStatus.OWED] == ["bind_ports"]
    undone = [name for name in fakes.names() if name in UNDOS.values()]
    assert undone == ["destroy_guest", *["unbind_ports"] * 5, "drop_claim", "release_allocation"]


async def test_an_undo_in_the_database_is_tried_until_it_is_done(fakes: Fakes) -> None:
    fakes.fail("spawn", RescheduleError("no"))
    fakes.fail("release_allocation", RuntimeError("the database is away"), times=30)
    handle = await boot(fakes)

    assert (await handle.result()).vm_state == "active"
    assert fakes.names().count("release_allocation") == 31


async def test_a_guest_that_may_be_running_is_not_built_a_second_time(fakes: Fakes) -> None:
    fakes.fail("resume_guest", RescheduleError("no"))
    fakes.fail("destroy_guest", RuntimeError("it does not die"), times=5)
    handle = await boot(fakes)

    error = await failure(handle)

    assert isinstance(error, BuildFailed)
    assert "may be running on host node-1" in str(error)
    assert fakes.names().count("spawn") == 1


async def test_a_guest_that_is_surely_gone_is_built_on_the_next_host(fakes: Fakes) -> None:
    fakes.fail("resume_guest", RescheduleError("no"))
    await (await boot(fakes)).result()
    assert [host for name, host in fakes.calls if name == "spawn"] == ["node-1", "node-2"]


async def test_the_database_may_be_away_for_hours(fakes: Fakes) -> None:
    fakes.fail("schedule", RuntimeError("the database is away"), times=400)
    handle = await boot(fakes)

    await handle.result()

    [schedule] = [step for step in await steps(handle) if step.name == "schedule"]
    assert schedule.started_at is not None
    assert schedule.finished_at is not None
    assert schedule.finished_at - schedule.started_at > timedelta(hours=1)
