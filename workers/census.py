"""What the control worker knows of the whole cloud, as readings of gauges: from the database, from Temporal's index.

Each control worker reads, and exports, the same: in queries, take the `max` over them, not the sum.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import Session, col, func, select
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.control.calls.hosts import HostCalls
from hostler.client.audit import Audits
from hostler.client.connection import Connection
from hostler.client.index import running_filter
from hostler.client.progress import QUERY_TIMEOUT
from hostler.contract.audit import FindingKind
from hostler.contract.calls import Nothing
from hostler.contract.errors import NotFound
from hostler.contract.host_work import WATCH_HOSTS, WatchState
from hostler.contract.resources import Host
from hostler.contract.servers import Hold
from hostler.contract.states import TaskState, VmState, status
from hostler.settings import Settings
from models import Database, OwedWork, Server, now
from models import Host as HostRow
from scheduler.liveness import Alive

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Reading:
    """One value of a gauge."""

    gauge: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Census:
    """Reads. `operations` are the workflow types that are operations on servers."""

    client: Client
    settings: Settings
    database: Database
    alive: Alive
    operations: Sequence[str]

    async def audited(self) -> list[Reading]:
        """What the last scheduled audit found; nothing when none has ended."""
        audits = Audits(Connection(self.client, self.settings, self.settings.project))
        with suppress(NotFound):
            report = await audits.last()
            found = [
                Reading("hostler_audit_findings", report.counts.get(kind, 0), {"kind": kind.value})
                for kind in FindingKind
            ]
            return [
                *found,
                Reading("hostler_audit_unhealed", report.unhealed),
                Reading("hostler_audit_hosts_not_audited", len(report.not_audited)),
                Reading("hostler_audit_finished_timestamp_seconds", report.finished_at.timestamp()),
            ]
        return []

    async def watched(self) -> list[Reading]:
        """What the watch over the hosts knows."""
        state = WatchState()
        handle = self.client.get_workflow_handle(WATCH_HOSTS)
        try:
            state = await handle.query("state", result_type=WatchState, rpc_timeout=QUERY_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return [
            Reading("hostler_hosts_silent", len(state.silent)),
            Reading("hostler_host_failures_alarm", float(bool(state.alarm))),
            Reading("hostler_host_failures_stuck", sum(bool(host.stuck) for host in state.silent)),
        ]

    async def running(self) -> list[Reading]:
        """Operations that run, and those of them that take longer than they should."""
        index = self.client
        running = {
            name: (await index.count_workflows(f"ExecutionStatus = 'Running' AND WorkflowType = '{name}'")).count
            for name in self.operations
        }
        overdue = Counter([one.workflow_type async for one in index.list_workflows(running_filter(None, None, True))])
        return [
            *(Reading("hostler_operations_running", count, {"operation": name}) for name, count in running.items()),
            *(Reading("hostler_operations_overdue", overdue[name], {"operation": name}) for name in self.operations),
        ]

    def rows(self) -> list[Reading]:
        """What the database says. Blocks."""
        hosts = HostCalls(self.database, self.alive).list_hosts(Nothing())
        with self.database.read() as session:
            return [
                *_servers(session),
                *_holds(session, self.operations),
                *_owed(session),
                *_hosts(hosts),
                *_capacity(hosts),
            ]


def _servers(session: Session) -> Iterator[Reading]:
    query = (
        select(Server.vm_state, Server.task_state, func.count())
        .where(col(Server.deleted_at).is_(None))
        .group_by(col(Server.vm_state), col(Server.task_state))
    )
    counts: Counter[str] = Counter()
    for vm_state, task_state, count in session.exec(query):
        counts[status(VmState(vm_state), TaskState(task_state) if task_state else None)] += count
    for name, count in counts.items():
        yield Reading("hostler_servers", count, {"status": name})


def _holds(session: Session, operations: Sequence[str]) -> Iterator[Reading]:
    held: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for hold in session.exec(select(Server.hold).where(col(Server.hold).is_not(None))):
        one = Hold.model_validate(hold)
        held[one.operation] += 1
        oldest[one.operation] = max(oldest.get(one.operation, 0.0), _age(one.since))
    for name in operations:
        yield Reading("hostler_operations_held", held[name], {"operation": name})
        yield Reading("hostler_operations_held_oldest_seconds", oldest.get(name, 0.0), {"operation": name})


def _owed(session: Session) -> Iterator[Reading]:
    query = (
        select(HostRow.name, func.count(), func.min(OwedWork.created_at))
        .join(OwedWork, col(OwedWork.host_id) == HostRow.id)
        .group_by(HostRow.name)
    )
    for host, count, since in session.exec(query):
        yield Reading("hostler_owed_work", count, {"host": host})
        yield Reading("hostler_owed_work_oldest_seconds", _age(since), {"host": host})


def _hosts(hosts: Sequence[Host]) -> Iterator[Reading]:
    states = Counter((host.zone, _state(host)) for host in hosts)
    for zone in {host.zone for host in hosts}:
        for state in ("up", "down", "disabled"):
            yield Reading("hostler_hosts", states[zone, state], {"zone": zone, "state": state})
    for host in hosts:
        labels = {"zone": host.zone, "host": host.name}
        yield Reading("hostler_host_up", float(host.up), labels)
        yield Reading("hostler_host_enabled", float(host.enabled), labels)


def _capacity(hosts: Sequence[Host]) -> Iterator[Reading]:
    sums: Counter[tuple[str, str, str, str]] = Counter()
    for host in hosts:
        place, has = (host.zone, _state(host)), host.inventory
        for resource, unit, total, reserved, ratio, used in (
            ("vcpus", 1, has.vcpus, 0, has.cpu_ratio, host.used_vcpus),
            ("ram_bytes", MIB, has.ram_mib, has.reserved_ram_mib, has.ram_ratio, host.used_ram_mib),
            ("disk_bytes", GIB, has.disk_gib, has.reserved_disk_gib, has.disk_ratio, host.used_disk_gib),
        ):
            gauge = f"hostler_capacity_{resource}"
            sums[gauge, *place, "total"] += total * unit
            sums[gauge, *place, "reserved"] += reserved * unit
            sums[gauge, *place, "allocatable"] += int((total - reserved) * ratio) * unit
            sums[gauge, *place, "allocated"] += used * unit
    for (gauge, zone, state, kind), value in sums.items():
        yield Reading(gauge, value, {"zone": zone, "state": state, "kind": kind})


def _state(host: Host) -> str:
    if not host.enabled:
        return "disabled"
    return "up" if host.up else "down"


def _age(since: datetime) -> float:
    return max(0.0, (now() - since).total_seconds())
