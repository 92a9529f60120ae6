"""A control worker that stands still for some seconds, as on a machine that is busy or was paused, goes on afterwards.

After two seconds the SDK takes a workflow's turn for a deadlock, and removes the run from its cache in a second thread
while the first goes on: from then on the run is stuck, and the worker cannot end. There is no option for how long it
waits (https://github.com/temporalio/sdk-python/issues/1050).
"""

from datetime import timedelta

from temporalio.worker import Worker

LONGEST_TURN = timedelta(seconds=60)


def patient(worker: Worker) -> Worker:
    """Let workflows take that long for a turn: hardly any code of ours blocks, and machines do."""
    workflows = worker._workflow_worker
    if workflows is not None:
        workflows._deadlock_timeout_seconds = LONGEST_TURN.total_seconds()  # type: ignore[assignment]
    return worker
