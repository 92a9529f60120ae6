"""Hold and decide: an operation that can go no further waits for an operator, its world intact.

It holds where it would give up, if its request or the settings ask for it, and says so: in its progress, in the
server's row and history, in the search attribute HostlerHeld. The update `decide` lets it go on:

| decision | what the operation does |
|---|---|
| retry | the step that failed, once more |
| move | leaves the host and takes the named one, or the scheduler's choice |
| give-up | undoes all of it; so does a hold that nobody decides on in time |
"""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from temporalio import workflow

from activities.interfaces.scheduling import HostName, Scheduling
from activities.interfaces.servers import EventLog, HostRef, Note, Servers
from hostler.contract.errors import HostlerError
from hostler.contract.names import HELD
from hostler.contract.servers import (
    Choice,
    Decided,
    Decision,
    Hold,
    OnFailure,
    OperationName,
    OperationRequest,
    Step,
    StepStatus,
)
from hostler.contract.validation import check_decision
from workflows.concurrency import to_the_end
from workflows.failures import Verdict, judge
from workflows.refusals import already_decided, choice_makes_no_sense, holds_not
from workflows.runner import StepRunner
from workflows.steps import CONTROL_RETRY, CONTROL_UNDO_RETRY, QUICK_STEP

HOLD = "hold"


class Holder(StepRunner):
    """The holds of one run. Steps that fail at the same time hold one after the other."""

    operation: OperationName
    call: OperationRequest

    def __init__(self, operation: str, server_id: str, planned: Sequence[str]) -> None:
        super().__init__(operation, server_id, planned)
        self.destination: HostRef | None = None
        self.moving = False
        self._leaving = False
        self._decision: Decision | None = None
        self._one_at_a_time = asyncio.Lock()

    @abstractmethod
    def accepted(self) -> bool:
        """Whether the operation was accepted; before that a failure is the answer to the caller."""

    @abstractmethod
    def event_log(self, closing: str | None) -> EventLog:
        """The steps so far."""

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        """What an operator may decide about a step that failed so, or nothing where there is another way out."""
        return (Choice.RETRY, Choice.GIVE_UP)

    @workflow.update(name="decide")
    async def decide(self, decision: Decision) -> Decided:
        """Take an operator's decision, or say why it makes no sense now."""
        hold = self._check(decision)
        destination = await self._locate(decision.host) if decision.host is not None else None
        if self.state.hold is not hold or self._decision is not None:  # meanwhile
            raise already_decided(self.state).to_application_error()
        self._decision, self.destination = decision, destination
        return Decided(
            operation=self.operation,
            server_id=self.state.server_id,
            run_id=self.run_id,
            step=hold.step,
            choice=decision.choice,
        )

    def _check(self, decision: Decision) -> Hold:
        hold = self.state.hold
        if hold is None:
            raise holds_not(self.operation, self.state).to_application_error()
        if self._decision is not None:
            raise already_decided(self.state).to_application_error()
        try:
            check_decision(decision)
        except HostlerError as error:
            raise error.to_application_error() from None
        if decision.choice not in hold.choices:
            raise choice_makes_no_sense(decision.choice, hold).to_application_error()
        return hold

    async def _locate(self, name: str) -> HostRef:
        host: HostRef = await workflow.execute_activity_method(
            Scheduling.locate,
            HostName(name=name),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_RETRY,
            summary=f"find host {name}",
        )
        return host

    async def stuck(self, record: Step, failure: BaseException, on: HostRef | None) -> Decision:
        """Hold, if that is asked for and nothing else is left; returns when the step is to be tried again."""
        verdict = judge(failure, host=on.name if on else None)
        choices = [] if self.stopping or not self.accepted() else list(self.choices(verdict, on))
        if not choices or (self.call.on_failure or self.limits.on_failure) is not OnFailure.HOLD:
            raise failure
        async with self._one_at_a_time:
            if self._leaving:  # a step that failed beside this one was decided on: the host is left, or all
                raise failure
            decision = await self._hold(record, verdict.error, choices)
        if decision.choice is Choice.RETRY or (decision.choice is Choice.MOVE and on is None):
            return decision
        self._leaving, self.moving = True, decision.choice is Choice.MOVE
        raise failure

    def arrive(self) -> None:
        """Another host is tried: the decision that led there is carried out."""
        self._leaving, self.moving, self.destination = False, False, None

    async def _hold(self, step: Step, error: HostlerError, choices: list[Choice]) -> Decision:
        self._decision, self.destination = None, None
        since = workflow.now()
        self.state.hold = Hold(
            operation=self.operation,
            run_id=self.run_id,
            step=step.name,
            attempt=step.attempt,
            host=step.host,
            error=error.detail,
            since=since,
            until=since + self.limits.hold,
            choices=choices,
        )
        record = self.begin_record(HOLD, None)
        record.status, record.host, record.note = StepStatus.HELD, step.host, f"at {step.name}: {error.detail.message}"
        self.announce()
        workflow.logger.warning("holds at %s: %s", step.name, error.detail.message)
        workflow.upsert_search_attributes([HELD.value_set(True)])
        try:
            await to_the_end(self._tell())
            self.heed()
            decision = await self._await_decision()
            self.heed()
        except asyncio.CancelledError as cancelled:
            self._hold_ends()
            self.end_record(record, cancelled)
            raise
        self._hold_ends()
        self.end_record(record)
        record.note = f"{record.note}; {spelled(decision)}"
        workflow.logger.warning("%s", spelled(decision))
        await to_the_end(self._tell())
        return decision

    def _hold_ends(self) -> None:
        self.state.hold = None
        workflow.upsert_search_attributes([HELD.value_set(False)])

    async def _await_decision(self) -> Decision:
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._decision is not None, timeout=self.limits.hold, timeout_summary="decision"
            )
        if self._decision is not None:
            return self._decision
        return Decision(choice=Choice.GIVE_UP, by="hostler", note=f"nobody decided within {self.limits.hold}")

    async def _tell(self) -> None:
        """Show the hold, or its end, in the server's row and history."""
        await workflow.execute_activity_method(
            Servers.note,
            Note(hold=self.state.hold, events=self.event_log(None)),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_UNDO_RETRY,
            summary=f"holds at {self.state.hold.step}" if self.state.hold else "holds no longer",
        )


def spelled(decision: Decision) -> str:
    """A decision in words, for the history."""
    where = f" to {decision.host}" if decision.host else ""
    by = f" by {decision.by}" if decision.by else ""
    return f"{decision.choice}{where}{by}" + (f": {decision.note}" if decision.note else "")
