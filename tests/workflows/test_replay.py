"""Runs that are under way survive an upgrade: histories that were recorded before are replayed with today's code."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from hostler.codec import converter_with
from hostler.encryption import Keys
from tests.sandbox import workflow_runner
from tests.workflows.record_histories import DIRECTORY
from workers.control import WORKFLOWS

HISTORIES = sorted(DIRECTORY.glob("*.json"))


def read(file: Path) -> WorkflowHistory:
    """A recorded history."""
    record = json.loads(file.read_text())
    return WorkflowHistory.from_json(record.pop("workflow_id"), record)


def type_of(file: Path) -> str:
    """The type of the workflow that was recorded."""
    return read(file).events[0].workflow_execution_started_event_attributes.workflow_type.name


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
async def test_a_recorded_run_is_replayed(file: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=workflow_runner(), data_converter=converter_with(Keys()))
    await replayer.replay_workflow(read(file))


def test_there_is_a_record_of_every_workflow() -> None:
    names = {kind.__dict__["__temporal_workflow_definition"].name for kind in WORKFLOWS}
    assert {type_of(file) for file in HISTORIES} == names


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
def test_a_record_is_named_after_its_workflow(file: Path) -> None:
    assert file.stem.startswith(f"{type_of(file)}-")


async def test_a_change_of_the_steps_is_noticed() -> None:
    """The replay is no formality: a history with another first step does not fit."""
    history = read(DIRECTORY / "boot-ok.json")
    for event in history.events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "schedule":
            scheduled.activity_type.name = "dice"
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=workflow_runner(), data_converter=converter_with(Keys()))
    with pytest.raises(Exception, match="dice"):
        await replayer.replay_workflow(history)
