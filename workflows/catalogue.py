"""What the workflows of the catalogue share: all of it happens, or nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from temporalio import workflow
from temporalio.exceptions import FailureError

from hostler.contract.errors import HostlerError
from workflows.concurrency import to_the_end
from workflows.runner import StepRunner
from workflows.steps import Result, Saga


class CatalogueRunner(StepRunner):
    """The steps of a workflow that makes or removes something of the catalogue."""

    def __init__(self) -> None:
        super().__init__(workflow.info().workflow_type, "", ())

    async def all_or_nothing(self, carry_out: Callable[[Saga], Awaitable[Result]]) -> Result:
        """Carry out; on failure or cancellation undo."""
        saga = Saga()
        try:
            result = await carry_out(saga)
        except asyncio.CancelledError:
            self.stopping = True
            await to_the_end(self.unwind(saga))
            raise
        except (FailureError, HostlerError) as failure:
            self.stopping = True
            error = self.explain(failure)
            await to_the_end(self.unwind(saga))
            raise error.to_application_error() from None
        self.state.done = True
        return result
