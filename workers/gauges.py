"""Gauges of the state of the whole cloud, which the control worker reads anew every some seconds."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from temporalio.common import MetricGaugeFloat, MetricMeter
from temporalio.service import RPCError

from hostler.contract.errors import HostlerError
from workers.census import Census, Reading

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0

MEANINGS = {
    "hostler_servers": "Servers that are not deleted.",
    "hostler_operations_running": "Operations that run.",
    "hostler_operations_overdue": "Operations that run for longer than operations.overdue.",
    "hostler_operations_held": "Operations that wait for an operator's decision.",
    "hostler_operations_held_oldest_seconds": "For how long the oldest hold has waited.",
    "hostler_owed_work": "Clean-ups that a host must do when it returns.",
    "hostler_owed_work_oldest_seconds": "For how long the oldest of them has waited.",
    "hostler_hosts": "Hosts.",
    "hostler_host_up": "Whether a host's worker is up.",
    "hostler_host_enabled": "Whether the scheduler may use a host.",
    "hostler_hosts_silent": "Hosts that the watch does not hear.",
    "hostler_host_failures_alarm": "Whether too many hosts are lost at once, or all, so that none is evacuated.",
    "hostler_host_failures_stuck": "Silent hosts whose failure could not be dealt with.",
    "hostler_capacity_vcpus": "vCPUs of the hosts.",
    "hostler_capacity_ram_bytes": "Memory of the hosts.",
    "hostler_capacity_disk_bytes": "Disk of the hosts.",
    "hostler_audit_findings": "What the last scheduled audit found, healed or not.",
    "hostler_audit_unhealed": "What the last scheduled audit found and did not heal.",
    "hostler_audit_hosts_not_audited": "Hosts that the last scheduled audit could not ask.",
    "hostler_audit_finished_timestamp_seconds": "When the last scheduled audit ended.",
    "hostler_census_timestamp_seconds": "When these gauges were last read from their source.",
}

Key = tuple[str, frozenset[tuple[str, str]]]


class Gauges:
    """The gauges. One whose subject is gone falls to zero: an exporter never forgets it by itself."""

    def __init__(self, meter: MetricMeter) -> None:
        self._gauges: dict[str, MetricGaugeFloat] = {
            name: meter.create_gauge_float(name, meaning) for name, meaning in MEANINGS.items()
        }
        self._shown: dict[str, set[Key]] = {}

    def show(self, source: str, readings: Sequence[Reading]) -> None:
        """Set what one source says now, and zero what it no longer speaks of."""
        now: set[Key] = set()
        for reading in readings:
            self._gauges[reading.gauge].set(reading.value, reading.labels)
            now.add((reading.gauge, frozenset(reading.labels.items())))
        for gauge, labels in self._shown.get(source, set()) - now:
            self._gauges[gauge].set(0, dict(labels))
        self._shown[source] = now
        self._gauges["hostler_census_timestamp_seconds"].set(time.time(), {"source": source})


async def refresh(gauges: Gauges, census: Census) -> None:
    """Read all of it once. What cannot be read keeps its value; `hostler_census_timestamp_seconds` tells how old."""

    async def rows() -> list[Reading]:
        return await asyncio.to_thread(census.rows)

    sources: dict[str, Callable[[], Awaitable[list[Reading]]]] = {
        "database": rows,
        "temporal": census.running,
        "audit": census.audited,
        "watch": census.watched,
    }
    for source, read in sources.items():
        try:
            gauges.show(source, await read())
        except (HostlerError, RPCError) as error:
            logger.warning("the gauges from the %s keep their values: %s", source, error)
        except Exception:
            logger.exception("the gauges from the %s keep their values", source)


async def keep_refreshing(meter: MetricMeter, census: Census) -> None:
    """Read again and again, until cancelled."""
    gauges = Gauges(meter)
    while True:
        await refresh(gauges, census)
        await asyncio.sleep(INTERVAL_SECONDS)
