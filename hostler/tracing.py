"""OpenTelemetry traces, from a client's call through the workflow to the host's step; off without `tracing.endpoint`.

OpenTelemetry is imported only where traces are wanted: it comes with the extra `tracing`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from temporalio.client import Interceptor

from hostler.contract.errors import InvalidRequest, Unavailable
from hostler.settings import TracingSettings

if TYPE_CHECKING:
    from hostler.spans import Tracing

PATH = "/v1/traces"
"""Where a collector takes traces, when the endpoint names no path."""


def interceptors(settings: TracingSettings, service: str) -> Sequence[Interceptor]:
    """What a Temporal client, and the workers that use it, need to be traced as `hostler-<service>`.

    Raises:
        InvalidRequest: the endpoint is no URL.
        Unavailable: OpenTelemetry is not installed.
    """
    if settings.endpoint is None:
        return []
    endpoint = _url(settings.endpoint)
    if (endpoint, service) not in _begun:
        _begun[endpoint, service] = _begin(endpoint, service)
    return [_begun[endpoint, service]]


def flush() -> None:
    """Send what this process has not sent yet; blocks for some seconds at most."""
    for tracing in _begun.values():
        tracing.flush()


_begun: "dict[tuple[str, str], Tracing]" = {}
"""One for all clients of a process, for each has a thread of its own."""


def _begin(endpoint: str, service: str) -> "Tracing":
    try:
        from hostler.spans import Tracing
    except ImportError as error:
        raise Unavailable(
            f"traces are wanted (tracing.endpoint), and OpenTelemetry is not installed: {error}",
            field="tracing.endpoint",
            value=endpoint,
            remedy="pip install 'hostler[tracing]', or unset tracing.endpoint",
        ) from error
    return Tracing(endpoint, service)


def _url(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(
            f"tracing.endpoint is no URL of a collector: {endpoint}",
            field="tracing.endpoint",
            value=endpoint,
            remedy="give that of its OTLP/HTTP receiver, such as http://127.0.0.1:4318",
        )
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}{PATH}"
