"""A host worker that is older than the control worker: what it does not know it refuses, and other hosts do it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import ActivityFailureError

from hostler.contract.errors import RescheduleError, from_application_error
from hostler.contract.names import host_queue
from tests.cloud import LIMIT, Cloud
from workers.machine import Machine


@pytest.fixture
async def older(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud whose first host is of a release that had no `bind_ports` and no `drop_claim`."""
    whole: Callable[[Machine], list[Any]] = Machine.activities

    def fewer(machine: Machine) -> list[Any]:
        unknown = ("bind_ports", "drop_claim") if machine.name == "sim-1" else ()
        return [one for one in whole(machine) if one.__name__ not in unknown]

    monkeypatch.setattr(Machine, "activities", fewer)
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    return cloud


async def test_a_step_that_a_host_does_not_know_is_refused_at_once(older: Cloud) -> None:
    with pytest.raises(ActivityFailureError) as caught:
        await older.temporal.execute_activity(
            *("warm_up", {"degrees": 20}),
            id="warm-up",
            task_queue=host_queue(older.machine("sim-1").id),
            start_to_close_timeout=timedelta(seconds=20),
        )
    error = from_application_error(caught.value.cause)  # type: ignore[arg-type]  # the test fails without one
    assert isinstance(error, RescheduleError)
    assert "sim-1 does not know the step warm_up" in str(error)
    assert "upgrade the worker of sim-1" in (error.remedy or "")


async def test_a_build_goes_to_a_host_that_knows_its_steps(older: Cloud) -> None:
    boot = await older.boot()

    assert (await boot.result(LIMIT)).host == "sim-2"

    steps = (await older.progress(boot)).steps
    [refused] = [step for step in steps if step.error]
    assert (refused.name, refused.host, refused.retries) == ("bind_ports", "sim-1", 0)
    assert "does not know the step bind_ports" in (refused.error or "")


async def test_an_undo_that_a_host_does_not_know_is_owed_until_it_is_upgraded(
    older: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await (await older.boot()).result(LIMIT)
    assert (await older.world()).owed == {("sim-1", "drop_claim")}

    monkeypatch.undo()
    await older.stop_host("sim-1")
    await older.start_host("sim-1")

    world = await older.world()
    assert world.owed == frozenset()
    assert {host for host, _ in world.claims} == {"sim-2"}
    await older.deleted(server.id)


async def test_where_no_other_host_is_left_the_fault_says_why(older: Cloud) -> None:
    older.alive.discard(older.machine("sim-2").id)

    error = await older.failure(await older.boot(max_attempts=1))
    [attempt] = error.detail.attempts
    assert (attempt.host, attempt.step) == ("sim-1", "bind_ports")
    assert "sim-1 does not know the step bind_ports" in attempt.reason
