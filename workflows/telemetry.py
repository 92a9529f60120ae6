"""Metrics and log lines of operations, and the attempt that their steps are told: an interceptor of every workflow.

All of it is replay-safe: a run that is replayed is neither counted nor logged again. Nor is what a worker does twice
because Temporal did not take a workflow task's completion, which is no replay to the library: its meter would count it.
"""

import asyncio
import threading
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleUpdateInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from hostler.contract.names import ATTEMPT_HEADER
from hostler.contract.servers import Decision
from workflows.holding import Holder
from workflows.operation import Operation
from workflows.showing import Shown

STARTED, ENDED = "hostler_operations_started", "hostler_operations"
ENDED_MEANING = "Operations that ended."
DURATION = "hostler_operation_duration"
ATTEMPTS = "hostler_operation_attempts"
DECISIONS = "hostler_decisions"

REMEMBERED = 10_000
"""Events; a workflow task is done again at once, or after the seconds that it may take."""


class Outcome(StrEnum):
    """How an operation ended. `refused`: it never began; `preempted`: a delete took its place."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"


class _Once:
    """What this worker has counted. Many threads ask."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}
        self._lock = threading.Lock()

    def first(self, event: str) -> bool:
        """Whether `event`, of the run that asks, comes for the first time. The oldest are forgotten.

        What is replayed is neither first nor remembered; nor the end of a run that only leaves the worker's cache.
        """
        if workflow.unsafe.is_replaying():
            return False
        key = f"{workflow.info().run_id} {event}"
        with self._lock:
            if key in self._seen:
                return False
            self._seen[key] = None
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
        return True


_once = _Once()


class OperationTelemetry(Interceptor):
    """Watches the workflows of a worker."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """What watches one run."""
        return _Watcher


class _Watcher(WorkflowInboundInterceptor):
    """Counts and logs a run's begin and end."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Tell the run's steps their attempt."""
        super().init(_AttemptTeller(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        """Run it."""
        operation = {"operation": workflow.info().workflow_type}
        if _once.first("began"):
            workflow.metric_meter().create_counter(STARTED, "Operations that began.").add(1, operation)
        began = workflow.now()
        try:
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            # Another workflow goes on in its own next run.
            _ended(began, Outcome.PREEMPTED if isinstance(workflow.instance(), Operation) else Outcome.COMPLETED)
            raise
        except (FailureError, asyncio.CancelledError) as failure:
            _ended(began, _outcome(failure), failure)
            raise
        _ended(began, Outcome.COMPLETED)
        return result

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        """Count the decisions that were taken on holds."""
        answer = await super().handle_update_handler(input)
        decision = isinstance(workflow.instance(), Holder) and input.args and isinstance(input.args[0], Decision)
        if decision and _once.first(f"decision {input.id}"):
            labels = {"operation": workflow.info().workflow_type, "choice": input.args[0].choice.value}
            workflow.metric_meter().create_counter(DECISIONS, "Decisions on operations that held.").add(1, labels)
        return answer


class _AttemptTeller(WorkflowOutboundInterceptor):
    """A step does not know at which host its operation is, counted from the first: a header says so."""

    def start_activity(self, input: StartActivityInput) -> "workflow.ActivityHandle[Any]":
        run = workflow.instance()
        if isinstance(run, Shown):
            attempt = workflow.payload_converter().to_payload(run.state.attempt)
            input.headers = {**input.headers, ATTEMPT_HEADER: attempt}
        return super().start_activity(input)


def _outcome(failure: BaseException) -> Outcome:
    run = workflow.instance()
    if isinstance(run, Operation) and not run.accepted():
        return Outcome.REFUSED
    if isinstance(failure, asyncio.CancelledError) or is_cancelled_exception(failure):
        return Outcome.CANCELLED
    return Outcome.FAILED


def _ended(began: datetime, outcome: Outcome, failure: BaseException | None = None) -> None:
    """Count a run that ends, and tell the log."""
    if not _once.first("ended"):
        return
    labels = {"operation": workflow.info().workflow_type, "outcome": outcome.value}
    lasted = workflow.now() - began
    meter = workflow.metric_meter()
    meter.create_counter(ENDED, ENDED_MEANING).add(1, labels)
    meter.create_histogram_timedelta(DURATION, "How long operations took.").record(lasted, labels)
    run = workflow.instance()
    if isinstance(run, Operation):
        attempts = meter.create_histogram(ATTEMPTS, "Hosts that operations tried.")
        attempts.record(run.state.attempt, labels)
    _tell(outcome, lasted, failure)


def _tell(outcome: Outcome, lasted: timedelta, failure: BaseException | None) -> None:
    fields = {"outcome": outcome.value, "seconds": round(lasted.total_seconds(), 3)}
    if outcome is Outcome.FAILED:
        workflow.logger.warning("%s: %s", outcome, failure, extra=fields)
    else:
        workflow.logger.info("%s", outcome, extra=fields)
