"""The front door of an operation: it begins, joins, is pre-empted, and refuses the rest.

The update `request` answers once the operation is accepted, so that the caller hears of a refusal at once; see
docs/concepts.md.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

from temporalio import workflow

from activities.interfaces.servers import Limits
from hostler.contract.errors import HostlerError
from hostler.contract.fingerprint import fingerprint
from hostler.contract.servers import Accepted, OperationCall, OperationName, OperationRequest, Server, VifPlugged
from workflows.holding import Holder
from workflows.overdue import Watch
from workflows.refusals import busy, not_theirs, other_request

Request = TypeVar("Request", bound=OperationRequest)


class FrontDoor(Holder, Generic[Request]):
    """Who may come in. `plugged` are the ports that hosts saw come up, with their hosts."""

    call: Request

    def __init__(self, request: Request, planned: Sequence[str]) -> None:
        super().__init__(self.operation, request.server_id, planned)
        self.call = request
        self.plugged: set[tuple[str, str]] = set()
        self._verdict: Accepted | HostlerError | None = None
        self._preempted_by: OperationCall | None = None
        self._main: asyncio.Task[Server] | None = None
        self._watch = Watch(self)

    @workflow.update(name="request")
    async def request(self, call: OperationCall) -> Accepted:
        """Accept the call, join it to the same one, or say what is in the way."""
        self.refuse(call)
        await workflow.wait_condition(lambda: self._verdict is not None)
        if not self._is_this(call):
            return self._preempt(call)
        if isinstance(self._verdict, HostlerError):
            raise self._verdict.to_application_error()
        assert self._verdict is not None
        return self._verdict

    @request.validator
    def refuse(self, call: OperationCall) -> None:
        """Turn away what this run does not take.

        By a validator, so that Temporal does not remember it: the same call may be good once this run has ended.
        """
        if call.project not in ("", self.call.project):
            raise not_theirs(call).to_application_error()
        if self._is_this(call):
            if call.fingerprint and call.fingerprint != fingerprint(self.call):
                raise other_request(call).to_application_error()
        elif call.operation is self.operation is OperationName.BOOT:
            raise other_request(call).to_application_error()
        elif call.operation is not OperationName.DELETE:
            raise busy(self.operation, self.state).to_application_error()

    def _is_this(self, call: OperationCall) -> bool:
        return call.operation is self.operation and call.request_id == self.call.request_id

    @workflow.signal(name="vif_plugged")
    def vif_plugged(self, event: VifPlugged) -> None:
        """A host saw a port come up; early ones count."""
        self.plugged.add((event.port_id, event.host_id))

    def _preempt(self, call: OperationCall) -> Accepted:
        if self.operation is not OperationName.DELETE:
            self._preempted_by = self._preempted_by or call
            if self._main is not None:
                self._main.cancel()
        return Accepted(
            operation=OperationName.DELETE,
            server_id=self.call.server_id,
            run_id=self.run_id,
            preempts=None if self.operation is OperationName.DELETE else self.operation,
        )

    def stop_asked(self) -> bool:
        """Whether the operation was cancelled or pre-empted."""
        return self._preempted_by is not None or super().stop_asked()

    def taken_over(self) -> bool:
        return self._preempted_by is not None

    def accept(self, limits: Limits, title: str, run_id: str | None = None) -> None:
        """From here on, whoever asked knows that it will be carried through or undone."""
        self.limits, self.title = limits, title
        self._verdict = Accepted(operation=self.operation, server_id=self.call.server_id, run_id=run_id or self.run_id)
        self._watch.begin(limits.overdue)

    def accepted(self) -> bool:
        """Whether `accept` was called."""
        return isinstance(self._verdict, Accepted)
