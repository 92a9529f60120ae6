"""What boots are measured against: a bare workflow with as many activities that do nothing, on the same queues."""

from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity, workflow

TIMEOUT = timedelta(seconds=30)


class Nothing(BaseModel):
    """An argument of about the size of a small step's."""

    server_id: str = "00000000-0000-0000-0000-000000000000"
    run_id: str = "00000000-0000-0000-0000-000000000000"


class Shape(BaseModel):
    """How many activities a boot runs on the control queue and on its host's."""

    control: int
    host: int
    host_queue: str


@activity.defn(name="bench_nothing")
async def nothing(argument: Nothing) -> Nothing:
    """Do nothing."""
    return argument


@workflow.defn(name="bench_baseline")
class Baseline:
    """The activities of a boot, in a row, without what they do."""

    @workflow.run
    async def run(self, shape: Shape) -> None:
        """Half of the control steps, the host's, then the rest."""
        before = shape.control // 2
        queues = [None] * before + [shape.host_queue] * shape.host + [None] * (shape.control - before)
        for queue in queues:
            await workflow.execute_activity(nothing, Nothing(), task_queue=queue, start_to_close_timeout=TIMEOUT)
