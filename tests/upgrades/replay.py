"""Replays the histories of a directory with the workflows of the release that is on the path.

python tests/upgrades/replay.py DIRECTORY
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from workers.control import WORKFLOWS


async def main(files: list[Path]) -> None:
    """Replay all; the first that does not fit raises."""
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=pydantic_data_converter,
    )
    for file in files:
        record = json.loads(file.read_text())
        await replayer.replay_workflow(WorkflowHistory.from_json(record.pop("workflow_id"), record))
        print(file.name)


asyncio.run(main(sorted(Path(sys.argv[1]).glob("*.json"))))
sys.stdout.flush()
os._exit(0)  # the interpreter's own end sometimes aborts, when threads of temporalio's are still about (1.35 on 3.11)
