"""Every worker exports metrics: what the operations did, what the cloud holds; and the reference lists all of them."""

import re
from pathlib import Path

import pytest

from tests.observability.conftest import FIRST, SECOND, Observed
from tests.observability.exposition import Metric

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(hostler_\w+)` \| (\w+) \|(.*?)\| (.+?) \|$", re.MULTILINE)
OF_TEMPORAL = {"namespace", "task_queue", "workflow_type", "activity_type"}
"""Labels that Temporal's meters add; the queue is a host's UUID."""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")


def ours(observed: Observed) -> dict[str, Metric]:
    """Our metrics, those of all workers together."""
    found: dict[str, Metric] = {}
    for scrape in (observed.held, observed.control, observed.host):
        for name, metric in scrape.metrics.items():
            if name.startswith("hostler_"):
                found.setdefault(name, Metric(name, metric.kind, metric.meaning)).samples += metric.samples
    return found


def test_the_reference_lists_every_metric_with_its_type_and_labels(observed: Observed) -> None:
    rows = ROW.findall((ROOT / "docs" / "reference.md").read_text())
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert documented == {name: (one.kind, one.labels - OF_TEMPORAL) for name, one in ours(observed).items()}


def test_each_says_what_it_means(observed: Observed) -> None:
    assert [name for name, metric in ours(observed).items() if not metric.meaning] == []


def test_no_label_names_a_server(observed: Observed) -> None:
    for metric in ours(observed).values():
        for _, labels, _ in metric.samples:
            mine = {name: value for name, value in labels.items() if name != "task_queue"}
            assert not any(UUID.search(value) for value in mine.values()), metric.name


def test_operations_are_counted_by_type_and_outcome(observed: Observed) -> None:
    def ended(**labels: str) -> float:
        return observed.control.value("hostler_operations_total", **labels)

    assert (ended(operation="boot", outcome="completed"), ended(operation="boot", outcome="refused")) == (2, 1), (
        observed.runs
    )
    assert ended(operation="stop", outcome="completed") == ended(operation="delete", outcome="completed") == 1
    assert observed.control.value("hostler_operations_started_total", operation="boot") == 3, observed.runs
    assert observed.control.value("hostler_operation_duration_seconds_count", operation="boot") == 3


def test_attempts_are_hosts(observed: Observed) -> None:
    completed = {"operation": "boot", "outcome": "completed"}
    assert observed.control.value("hostler_operation_attempts_sum", **completed) == 2 + 1, observed.runs


def test_durations_are_seconds(observed: Observed) -> None:
    lasted = observed.control.value("hostler_operation_duration_seconds_sum", operation="stop")
    assert 1 < lasted < 100, "it failed three times, half a second and a second apart"


def test_steps_are_counted_where_they_run(observed: Observed) -> None:
    def tries(where: str, **labels: str) -> float:
        scrape = observed.host if where == "host" else observed.control
        return scrape.value("hostler_step_duration_seconds_count", **labels)

    assert tries("host", step="stop_guest", outcome="failed") == 3
    assert tries("host", step="stop_guest", outcome="done") == 1
    assert observed.host.value("hostler_step_retries_total", step="stop_guest") == 2
    assert tries("control", step="activate", outcome="done") == 2
    assert tries("host", step="activate") == tries("control", step="stop_guest") == 0


def test_calls_are_no_steps(observed: Observed) -> None:
    assert observed.control.value("hostler_call_duration_seconds_count", call="set_host", outcome="done") == 2
    assert observed.control.value("hostler_step_duration_seconds_count", step="set_host") == 0


def test_an_image_is_downloaded_once(observed: Observed) -> None:
    requests = {one: observed.host.value("hostler_image_cache_requests_total", result=one) for one in ("hit", "miss")}
    assert requests == {"hit": 2, "miss": 1}, "three builds, on hosts that share a cache"


def test_a_hold_shows_until_it_is_decided(observed: Observed) -> None:
    for gauge in ("hostler_operations_held", "hostler_operations_overdue", "hostler_operations_running"):
        assert observed.held.value(gauge, operation="stop") == 1
        assert observed.control.value(gauge, operation="stop") == 0
    assert observed.held.value("hostler_operations_held_oldest_seconds", operation="stop") > 0
    assert observed.control.value("hostler_decisions_total", operation="stop", choice="retry") == 1


def test_owed_work_names_its_host(observed: Observed) -> None:
    assert observed.control.value("hostler_owed_work", host=FIRST) >= 1
    assert observed.control.value("hostler_owed_work_oldest_seconds", host=FIRST) > 1
    assert observed.control.value("hostler_owed_work", host=SECOND) == 0


def test_hosts_and_their_capacity_are_shown(observed: Observed) -> None:
    seen = observed.control
    assert [seen.value("hostler_host_up", host=host) for host in (FIRST, SECOND)] == [1, 1]
    assert seen.value("hostler_hosts", zone="nova", state="up") == 2
    assert seen.value("hostler_capacity_vcpus", kind="total") == 64
    assert seen.value("hostler_capacity_vcpus", kind="allocatable") == 256
    assert seen.value("hostler_capacity_ram_bytes", kind="total") == 2 * 64 * 2**30
    assert observed.held.value("hostler_capacity_ram_bytes", kind="allocated") == 128 * 2**20


def test_the_audit_speaks_by_metrics(observed: Observed) -> None:
    assert observed.control.value("hostler_audit_finished_timestamp_seconds") > 1e9
    assert observed.control.value("hostler_audit_findings") == 1
    assert observed.control.value("hostler_audit_findings", kind="no-allocation") == 1


@pytest.mark.parametrize(
    "name", ["temporal_request_total", "temporal_activity_schedule_to_start_latency_seconds_bucket"]
)
def test_temporals_own_metrics_are_there_too(observed: Observed, name: str) -> None:
    assert name in observed.control.names()
    assert name in observed.host.names()
