"""Runs of workflows, as Temporal sees them: it knows of tries that a run does not."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity


class RunRef(BaseModel):
    """One run."""

    workflow_id: str
    run_id: str


class Runs(ABC):
    """Questions about runs."""

    @activity.defn(name="failing_steps")
    @abstractmethod
    async def failing_steps(self, call: RunRef) -> list[str]:
        """The activities of the run that have failed and are tried again, each with its last failure."""
