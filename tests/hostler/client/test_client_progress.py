"""What Temporal knows of activities is laid over what a workflow tells of its steps."""

import asyncio

import pytest

from hostler.client.progress import Pending, _rung, merge
from hostler.contract.servers import Progress, Step, StepStatus


def progress(*steps: Step) -> Progress:
    """A boot with these steps."""
    return Progress(operation="boot", server_id="s", run_id="r", steps=list(steps))


def test_a_running_step_gets_the_retries_the_error_and_the_note_of_its_activity() -> None:
    running = Step(name="spawn", status=StepStatus.RUNNING)
    merged = merge(progress(running), [Pending("7", "spawn", attempt=3, error="no space", note="40 %")])
    assert merged.steps == [running.model_copy(update={"retries": 2, "error": "no space", "note": "40 %"})]


def test_steps_that_have_ended_or_not_begun_keep_what_they_have() -> None:
    before = progress(Step(name="spawn", status=StepStatus.DONE), Step(name="spawn", status=StepStatus.PENDING))
    assert merge(before, [Pending("7", "spawn", attempt=3)]) == before


def test_two_steps_of_one_name_take_one_activity_each() -> None:
    port = Step(name="allocate_port", status=StepStatus.RUNNING)
    merged = merge(progress(port, port), [Pending("1", "allocate_port", attempt=2), Pending("2", "allocate_port")])
    assert [step.retries for step in merged.steps] == [1, 0]


def test_an_activity_is_known_by_its_id_too() -> None:
    merged = merge(progress(Step(name="spawn", status=StepStatus.UNDOING)), [Pending("spawn", "destroy", attempt=2)])
    assert merged.steps[0].retries == 1


def test_activities_stand_in_for_a_workflow_that_does_not_answer() -> None:
    merged = merge(progress(), [Pending("1", "spawn", attempt=2, error="no space")])
    assert [(s.name, s.status, s.retries) for s in merged.steps] == [("spawn", StepStatus.RUNNING, 1)]


async def test_whoever_stops_following_is_heard_also_when_there_is_news() -> None:
    bell = asyncio.Event()
    waiting = asyncio.create_task(_rung(bell))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    bell.set()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
