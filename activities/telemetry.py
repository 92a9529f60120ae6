"""Metrics and log lines of activities, and what log lines of an activity say of where they are.

An activity of a workflow is a step; one that a client calls directly is a call.
"""

import asyncio
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.common import MetricMeter
from temporalio.exceptions import ApplicationError, is_cancelled_exception
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from hostler.contract.errors import from_application_error
from hostler.contract.names import ATTEMPT_HEADER

STEPS, CALLS = "hostler_step_duration", "hostler_call_duration"
RETRIES = "hostler_step_retries"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where an activity runs: at the operation's which attempt, on which host (its label; None: not on a host)."""

    attempt: int | None = None
    host: str | None = None


place: ContextVar[Place | None] = ContextVar("place", default=None)
"""The running activity's; also on the threads of activities that block."""


class ActivityTelemetry(Interceptor):
    """Counts and logs the activities of a worker; `host` is the label of the host that it serves."""

    def __init__(self, meter: MetricMeter, host: str | None = None) -> None:
        self.host = host
        self.steps = meter.create_histogram_timedelta(STEPS, "How long tries of steps took.")
        self.calls = meter.create_histogram_timedelta(CALLS, "How long tries of calls took.")
        self.retries = meter.create_counter(RETRIES, "Tries of steps that were not the first.")

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Watch `next`."""
        return _Watcher(next, self)

    def began(self, info: activity.Info) -> None:
        """Count a try that is not the first."""
        if info.workflow_type is not None and info.attempt > 1:
            self.retries.add(1, {"step": info.activity_type})

    def ended(self, info: activity.Info, outcome: str, seconds: float) -> None:
        """Count a try."""
        took = timedelta(seconds=seconds)
        if info.workflow_type is not None:
            self.steps.record(took, {"step": info.activity_type, "outcome": outcome})
        else:
            self.calls.record(took, {"call": info.activity_type, "outcome": outcome})


class _Watcher(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, telemetry: ActivityTelemetry) -> None:
        super().__init__(next)
        self._telemetry = telemetry

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        token = place.set(Place(attempt_of(input), self._telemetry.host))
        self._telemetry.began(info)
        began = time.monotonic()
        try:
            result = await super().execute_activity(input)
        except BaseException as failure:
            cancelled = isinstance(failure, asyncio.CancelledError) or is_cancelled_exception(failure)
            self._end(info, "cancelled" if cancelled else "failed", began, failure)
            raise
        else:
            self._end(info, "done", began)
            return result
        finally:
            place.reset(token)

    def _end(self, info: activity.Info, outcome: str, began: float, failure: BaseException | None = None) -> None:
        seconds = time.monotonic() - began
        self._telemetry.ended(info, outcome, seconds)
        fields = {"outcome": outcome, "seconds": round(seconds, 3)}
        if outcome != "failed":
            logger.debug("%s", outcome, extra=fields)
            return
        expected = isinstance(failure, ApplicationError) and from_application_error(failure) is not None
        # What the control worker refuses for good is the caller's affair, who hears of it.
        refused = isinstance(failure, ApplicationError) and failure.non_retryable and self._telemetry.host is None
        level = logging.INFO if expected and refused else logging.WARNING
        logger.log(level, "failed: %s", failure, extra=fields, exc_info=None if expected else failure)


def attempt_of(input: ExecuteActivityInput) -> int | None:
    """At which of its hosts the activity's operation is, if it said so."""
    payload: Payload | None = input.headers.get(ATTEMPT_HEADER)
    if payload is None:
        return None
    attempt: int = activity.payload_converter().from_payload(payload, int)
    return attempt
