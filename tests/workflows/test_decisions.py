"""What a boot decides, and when: on a server that skips time, with activities that only record their calls."""

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.testing import WorkflowEnvironment

from hostler.contract.errors import BuildFailed, OperationFailed, RescheduleError
from hostler.contract.names import SEARCH_ATTRIBUTES
from hostler.contract.servers import StepStatus
from tests.workflows.fakes import INTERRUPTIBLE, STEPS, UNDOS, Fakes, a_request, boot, check_undone, failure, steps
from workflows.plugging import WAIT_VIF_PLUGGED

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEST_SERVER = Path(sys.executable).with_name("temporal-test-server")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server that skips time."""
    # Each worker warns at length of what this server cannot do.
    quiet = Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(TelemetryFilter("ERROR", "ERROR"))))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(TEST_SERVER), data_converter=pydantic_data_converter, runtime=quiet
    ) as environment:
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=environment.client.namespace,
                search_attributes={
                    key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES
                },
            )
        )
        yield environment


@pytest_asyncio.fixture(loop_scope="module")
async def fakes(environment: WorkflowEnvironment) -> AsyncIterator[Fakes]:
    """Workers that only record."""
    async with Fakes(environment.client).running() as fakes:
        yield fakes


async def test_a_boot_that_works_undoes_nothing(fakes: Fakes) -> None:
    assert (await (await boot(fakes)).result()).vm_state == "active"
    assert not set(UNDOS.values()) & set(fakes.names())
    assert set(STEPS) <= set(fakes.names())


@pytest.mark.sampled
@pytest.mark.parametrize("step", INTERRUPTIBLE)
@pytest.mark.parametrize(
    "error", [RescheduleError("no"), OperationFailed("no"), ValueError("no")], ids=lambda e: type(e).__name__
)
async def test_a_step_that_fails_has_all_undone_that_was_begun(fakes: Fakes, step: str, error: Exception) -> None:
    fakes.fail(step, error, times=3)
    handle = await boot(fakes, a_request(max_attempts=1))

    assert await failure(handle)

    await check_undone(fakes, handle)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["claim_resources", "fetch_image", "bind_ports", "spawn", "resume_guest"])
async def test_a_step_that_breaks_on_a_host_is_tried_three_times_there(fakes: Fakes, step: str) -> None:
    fakes.fail(step, RuntimeError("no"), times=3)

    await (await boot(fakes)).result()

    assert [host for name, host in fakes.calls if name == step] == ["node-1"] * 3 + ["node-2"]


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


async def test_an_undo_is_tried_again_before_it_is_owed(fakes: Fakes) -> None:
    fakes.fail("spawn", RescheduleError("no"))
    fakes.fail("drop_claim", RuntimeError("not now"), times=4)
    handle = await boot(fakes)

    await handle.result()

    assert fakes.names().count("drop_claim") == 5
    assert "owe" not in fakes.names()


async def test_an_undo_that_a_host_cannot_do_is_owed_and_those_that_build_on_it_wait_behind_it(fakes: Fakes) -> None:
    fakes.fail("spawn", RescheduleError("no"))
    fakes.fail("unbind_ports", RuntimeError("never"), times=5)
    handle = await boot(fakes)

    await handle.result()

    owed = [step.name for step in await steps(handle) if step.status is StepStatus.OWED]
    assert owed == ["claim_resources", "bind_ports"]
    undone = [name for name in fakes.names() if name in UNDOS.values()]
    assert undone == ["destroy_guest", *["unbind_ports"] * 5, "release_allocation"]


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


async def test_the_database_may_be_away_for_a_while(fakes: Fakes) -> None:
    fakes.fail("schedule", RuntimeError("the database is away"), times=60)
    handle = await boot(fakes)

    await handle.result()

    [schedule] = [step for step in await steps(handle) if step.name == "schedule"]
    assert schedule.started_at is not None
    assert schedule.finished_at is not None
    assert schedule.finished_at - schedule.started_at > timedelta(minutes=8)
