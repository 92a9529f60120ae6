"""Spans and where they go: what `hostler.tracing` needs of OpenTelemetry. Imported only where traces are wanted.

Spans carry names and UUIDs (server, host, operation, step, attempt), and the messages of errors: no request, no result.
"""

import logging
import socket
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes
from temporalio import activity, workflow
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from hostler.contract.names import ATTEMPT_HEADER, HOST_QUEUE_PREFIX, SUBJECTS

EXPORT_SECONDS = 3
"""How long a collector that does not answer may hold up the end of a process."""
SERVER, HOST, OPERATION, STEP, ATTEMPT, TRY = (
    f"hostler.{name}" for name in ("server", "host", "operation", "step", "attempt", "try")
)


class Tracing(TracingInterceptor):
    """Traces the calls of a client, and the workflows and activities of its workers."""

    def __init__(self, endpoint: str, service: str) -> None:
        resource = Resource.create(
            {
                "service.name": f"hostler-{service}",
                "service.version": version("hostler"),
                "host.name": socket.gethostname(),
            }
        )
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(_NoPolling()))
        self._provider.add_span_processor(_Labels())
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_SECONDS * 1000))
        super().__init__(self._provider.get_tracer("hostler"))
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # not of each retry, on a user's terminal

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Trace `next`, its span labelled with the attempt of its operation."""
        return super().intercept_activity(_AttemptLabel(next))

    def flush(self) -> None:
        """Send what has not been sent yet; blocks for some seconds at most."""
        self._provider.force_flush(EXPORT_SECONDS * 1000)


class _NoPolling(Sampler):
    """Everything but the queries with which clients follow an operation: each would be a trace of its own."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        query = name.startswith("QueryWorkflow:")
        return SamplingResult(Decision.DROP if query else Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "no polling"


class _Labels(SpanProcessor):
    """Labels a span with the server, the operation and the step that it belongs to."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attributes({name: value for name, value in _labels(span).items() if value})


def _labels(span: Span) -> dict[str, Any]:
    known = span.attributes or {}
    kind, _, thing = str(known.get("temporalWorkflowID", "")).partition(":")
    labels: dict[str, Any] = {f"hostler.{kind}": thing} if kind in SUBJECTS else {}
    if workflow.in_workflow():
        progress = getattr(workflow.instance(), "state", None)
        labels |= {
            OPERATION: workflow.info().workflow_type,
            ATTEMPT: getattr(progress, "attempt", None),
            HOST: getattr(progress, "host", None),
        }
    elif activity.in_activity():
        info = activity.info()
        on_host = info.task_queue.startswith(HOST_QUEUE_PREFIX)
        labels |= {
            OPERATION: info.workflow_type,
            STEP: info.activity_type,
            TRY: info.attempt,
            HOST: info.task_queue.removeprefix(HOST_QUEUE_PREFIX) if on_host else None,
        }
    return labels


class _AttemptLabel(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        payload = input.headers.get(ATTEMPT_HEADER)
        if payload is not None:
            get_current_span().set_attribute(ATTEMPT, activity.payload_converter().from_payload(payload, int))
        return await super().execute_activity(input)
