"""The front door of work on all servers of a host: it is asked for, joined and refused, and tells how far it is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

from activities.interfaces.servers import HostRef
from hostler.contract.errors import Cancelled, HostlerError
from hostler.contract.host_work import HostProgress, HostWorkAccepted, HostWorkCall
from workflows.failures import judge
from workflows.host_details import markdown


class HostDoor:
    """What callers see. `everything` and `force` are as whoever began it asked, or anybody who joined."""

    everything = False
    force = False

    def __init__(self, host_id: str, request_id: str, title: str) -> None:
        self.state = HostProgress(host_id=host_id)
        self.title = title
        self._request_id = request_id
        self._accepted = False
        self._refusal: HostlerError | None = None

    @workflow.update(name="request")
    async def request(self, call: HostWorkCall) -> HostWorkAccepted:
        """Answer when the work has been accepted, or say what is in the way."""
        # Before anything is awaited: the work looks at these last of all before it ends.
        self.everything, self.force = self.everything or call.everything, self.force or call.force
        await workflow.wait_condition(lambda: self._accepted or self._refusal is not None)
        if self._refusal is not None:
            raise self._refusal.to_application_error()
        return HostWorkAccepted(
            host_id=self.state.host_id,
            host=self.state.host,
            run_id=workflow.info().run_id,
            joined=call.request_id != self._request_id,
        )

    @workflow.query(name="progress")
    def progress(self) -> HostProgress:
        """How far it is."""
        return self.state

    def accept(self, host: HostRef) -> None:
        """From here on whoever asked knows that it has begun."""
        self.state.host, self._accepted = host.name, True

    async def refuse(self, failure: BaseException) -> BaseException:
        """Tell all who ask why not, and return what the workflow ends with."""
        cancelled = is_cancelled_exception(failure)
        self._refusal = Cancelled("it was cancelled") if cancelled else judge(failure, host=None).error
        self.state.done = True
        self.stage(f"refused: {self._refusal}")
        await workflow.wait_condition(workflow.all_handlers_finished)
        return failure if cancelled else self._refusal.to_application_error()

    @contextmanager
    def to_its_end(self) -> Iterator[None]:
        """However the work inside ends, its progress says so, and why."""
        try:
            yield
        except (Exception, asyncio.CancelledError) as failure:
            cancelled = is_cancelled_exception(failure)
            self.stop("it was cancelled" if cancelled else f"it failed: {judge(failure, host=None).error}")
            raise
        finally:
            self.state.done = True
            self.stage("ended")

    def stage(self, stage: str) -> None:
        """Say what is being done."""
        self.state.stage = stage
        self.tell()

    def tell(self) -> None:
        """Show it in Temporal's UI."""
        workflow.set_current_details(markdown(self.title, self.state))

    def stop(self, why: str) -> None:
        """Begin nothing more."""
        self.state.stopped = self.state.stopped or why
        self.tell()
