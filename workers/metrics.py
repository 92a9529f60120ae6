"""A worker's metrics for Prometheus: Temporal's own and ours, from the exporter of Temporal's library."""

import ipaddress
from collections.abc import Sequence

from temporalio.client import Client
from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from activities.telemetry import CALLS, STEPS
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.names import CONTROL_QUEUE
from hostler.settings import MetricsSettings, Settings
from workers.logs import core_logging
from workflows.telemetry import ATTEMPTS, DURATION, ENDED, ENDED_MEANING, Outcome

PATH = "/metrics"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
QUICK = SECONDS[: SECONDS.index(60.0) + 1]
BUCKETS: dict[str, Sequence[float]] = {
    STEPS: SECONDS,
    DURATION: SECONDS,
    CALLS: QUICK,
    ATTEMPTS: (1, 2, 3, 4, 5, 10),
    # Of Temporal's library, whose own are made for milliseconds.
    "temporal_activity_schedule_to_start_latency": QUICK,
    "temporal_workflow_task_schedule_to_start_latency": QUICK,
}


def make_runtime(settings: Settings, setting: str, port: int) -> Runtime:
    """The runtime of this process's Temporal client; with a `port` it exports metrics there.

    Args:
        setting: the one that gives the port.

    Raises:
        Conflict: somebody else listens at the port.
        InvalidRequest: `metrics.address` is no address of this machine.
    """
    config = prometheus(settings.metrics, port) if port else None
    telemetry = TelemetryConfig(logging=core_logging(), metrics=config, attach_service_name=False)
    try:
        return Runtime(telemetry=telemetry, worker_heartbeat_interval=settings.temporal.heartbeat_interval)
    except ValueError as error:
        raise _unusable(settings.metrics.address, setting, port, error) from error


def prometheus(settings: MetricsSettings, port: int) -> PrometheusConfig:
    """How metrics are exported: as Prometheus wants them, in seconds and with units in their names.

    Raises:
        InvalidRequest: `metrics.address` is no IP address.
    """
    return PrometheusConfig(
        bind_address=address(settings, port),
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=BUCKETS,
    )


def address(settings: MetricsSettings, port: int) -> str:
    """Where the metrics at this port are.

    Raises:
        InvalidRequest: `metrics.address` is no IP address.
    """
    try:
        ip = ipaddress.ip_address(settings.address)
    except ValueError:
        raise InvalidRequest(
            f"metrics.address is no IP address: {settings.address}",
            field="metrics.address",
            value=settings.address,
            remedy='give an address of this machine, or "0.0.0.0" for all of them',
        ) from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def meter_of(client: Client) -> MetricMeter:
    """The meter of the client's process; it does nothing where nothing is exported."""
    return (client.service_client.config.runtime or Runtime.default()).metric_meter


def begin_at_zero(client: Client, operations: Sequence[str]) -> None:
    """Show each operation's counter of ends before the first: `increase()` does not see how a counter first appears."""
    for operation in operations:
        common = {"namespace": client.namespace, "task_queue": CONTROL_QUEUE, "workflow_type": operation}
        meter = meter_of(client).with_additional_attributes(common)
        ended = meter.create_counter(ENDED, ENDED_MEANING)
        for outcome in Outcome:
            ended.add(0, {"operation": operation, "outcome": outcome.value})


def _unusable(host: str, setting: str, port: int, error: ValueError) -> Conflict:
    from workers.preflight import port_problem  # psutil, for who has it

    problem = port_problem(setting, host, port)
    return Conflict(
        f"metrics cannot be served: {problem.what if problem else error}",
        field=setting,
        value=port,
        remedy=problem.remedy if problem else f"give it another port with {setting}",
    )
