"""Which hosts are silent, whether they really are, and how they are powered off."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from uuid import uuid4

from sqlmodel import col, select
from temporalio import activity
from temporalio.client import ActivityFailureError, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError, TimeoutError, TimeoutType
from temporalio.service import RPCError, RPCStatusCode

from activities.control.aggregates import metadata_of
from activities.control.fencing import fence
from activities.control.temporal import Temporal
from activities.interfaces import host_watch as interface
from activities.interfaces.holdings import Holdings, HoldingsQuery, HostHoldings
from activities.interfaces.host_watch import Fencing, HostsLook, LookAtHosts, Missing
from activities.interfaces.servers import HostRef
from hostler.contract.errors import InvalidRequest
from hostler.contract.evacuation import evacuated
from hostler.contract.host_work import HOST_FAILURE
from hostler.contract.names import host_failure_workflow_id, host_queue
from hostler.settings import Settings
from models import Database, Host, Server
from scheduler.liveness import Alive

MISSES = 3
"""So many heartbeats may pass until a control worker that has just begun has heard of every host."""


class HostWatch(interface.HostWatch):
    """Looks at all hosts that should be heard; acts on one."""

    def __init__(self, database: Database, alive: Alive, temporal: Temporal, settings: Settings) -> None:
        self._database = database
        self._alive = alive
        self._temporal = temporal
        self._settings = settings

    @activity.defn(name="look_at_hosts")
    async def look_at_hosts(self, call: LookAtHosts) -> HostsLook:
        settings = self._settings.host_failure
        missing = await asyncio.to_thread(self._missing)
        under_way, ended = [], {}
        asked = {*call.begun, *(host.id for host in missing), *await self._being_failed_over()}
        for host_id in sorted(asked):
            outcome = await self._outcome(host_id)
            if outcome is None:
                under_way.append(host_id)
            elif host_id in call.begun:
                ended[host_id] = outcome
        return HostsLook(
            missing=missing,
            under_way=under_way,
            ended=ended,
            interval=settings.interval,
            silence=max(settings.silence, MISSES * self._settings.temporal.heartbeat_interval),
            max_hosts=settings.max_hosts,
        )

    def _missing(self) -> list[Missing]:
        """Hosts with servers that are not heard. Those that are disabled are down on purpose."""
        alive, default = self._alive(), self._settings.host_failure.evacuate
        with self._database.read() as session:
            query = select(Host).where(col(Host.enabled).is_(True), col(Host.down_since).is_(None))
            hosts = {host.id: host for host in session.exec(query) if host.id not in alive}
            servers = select(Server.host_id, Server.metadata_).where(
                col(Server.host_id).in_(list(hosts)), col(Server.deleted_at).is_(None)
            )
            found = defaultdict[str, list[Mapping[str, str]]](list)
            for host_id, metadata in session.exec(servers):
                found[str(host_id)].append(metadata)
            policies = {host_id: metadata_of(session, host_id) for host_id in found}
            return [
                Missing(
                    id=host_id,
                    name=hosts[host_id].name,
                    servers=len(found[host_id]),
                    wanted=sum(evacuated(one, policies[host_id], default) for one in found[host_id]),
                )
                for host_id in sorted(found, key=lambda host_id: hosts[host_id].name)
            ]

    async def _being_failed_over(self) -> set[str]:
        """As of some moments ago."""
        query = f"WorkflowType = '{HOST_FAILURE}' AND ExecutionStatus = 'Running'"
        prefix = host_failure_workflow_id("")
        return {workflow_id.removeprefix(prefix) async for workflow_id in self._temporal.listed(query)}

    async def _outcome(self, host_id: str) -> str | None:
        """None while the host's failure is being dealt with; else why that came to nothing, or nothing."""
        handle = self._temporal.client.get_workflow_handle(host_failure_workflow_id(host_id))
        try:
            status = (await handle.describe()).status
            if status is WorkflowExecutionStatus.RUNNING:
                return None
            if status is not WorkflowExecutionStatus.COMPLETED:
                await handle.result()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        except WorkflowFailureError as failure:
            cause = failure.cause
            return cause.message if isinstance(cause, FailureError) else str(cause)
        return ""

    @activity.defn(name="host_answers")
    async def host_answers(self, call: HostRef) -> bool:
        try:
            await self._temporal.client.execute_activity(
                HostHoldings.list_holdings.__name__,
                HoldingsQuery(),
                id=f"{HostHoldings.list_holdings.__name__}:{uuid4()}",
                task_queue=host_queue(call.id),
                result_type=Holdings,
                schedule_to_start_timeout=self._settings.timeouts.host_answer,
                schedule_to_close_timeout=2 * self._settings.timeouts.host_answer,
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary=f"is {call.name} there?",
            )
        except ActivityFailureError as failure:
            cause = failure.cause
            return not (isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START)
        return True

    @activity.defn(name="fence_host")
    async def fence_host(self, call: HostRef) -> Fencing:
        settings = self._settings.host_failure
        if call.id in self._alive():
            return Fencing(back=True)
        if not settings.fence_command:
            raise InvalidRequest(
                f"there is no command that powers host {call.name} off",
                field="host_failure.fence_command",
                remedy=f"set it on the control workers; or see to it that the host is off, and say so: "
                f"hostler host evacuate {call.name} --force",
            )
        await fence(settings.fence_command, settings.fence_timeout, call.name, call.id)
        return Fencing()
