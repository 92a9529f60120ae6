"""What Temporal knows of a run."""

from temporalio import activity

from activities.control.temporal import Temporal
from activities.interfaces import runs as interface
from activities.interfaces.runs import RunRef


class Runs(interface.Runs):
    """Asks Temporal."""

    def __init__(self, temporal: Temporal) -> None:
        self._temporal = temporal

    @activity.defn(name="failing_steps")
    async def failing_steps(self, call: RunRef) -> list[str]:
        return await self._temporal.failing(call.workflow_id, call.run_id)
