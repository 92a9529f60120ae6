"""Each operation's file starts with the table of its steps: it leaves out none that a recorded run has done."""

import importlib
import re

import pytest

from hostler.contract.servers import OperationName
from tests.workflows.test_replay import HISTORIES, read, type_of

OF_NO_SERVER_ALONE = (OperationName.AUDIT, OperationName.HYPERVISOR)
SILENCE = {"owe", "declared_down"}
"""What is done in place of a step that a silent host cannot do."""


def table_of(operation: OperationName) -> str:
    """The table's rows."""
    module = importlib.import_module(f"workflows.{operation.value.replace('-', '_')}")
    return "\n".join(line for line in str(module.__doc__).splitlines() if line.startswith("| "))


def recorded(operation: OperationName) -> set[str]:
    """The activities of all recorded runs."""
    events = [event for file in HISTORIES if type_of(file) == operation for event in read(file).events]
    return {event.activity_task_scheduled_event_attributes.activity_type.name for event in events} - {""}


@pytest.mark.parametrize("operation", [one for one in OperationName if one not in OF_NO_SERVER_ALONE])
def test_the_table_names_every_step(operation: OperationName) -> None:
    done = recorded(operation)
    assert done
    assert done - SILENCE - set(re.findall(r"\w+", table_of(operation))) == set()
