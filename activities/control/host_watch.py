"""Which hosts are silent, whether they really are, how they are powered off, and how a person is called."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlmodel import col, select
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import FailureError
from temporalio.service import RPCError, RPCStatusCode

from activities.control import alarms
from activities.control.aggregates import metadata_of
from activities.control.fencing import fence
from activities.control.temporal import Temporal
from activities.interfaces import host_watch as interface
from activities.interfaces.host_watch import Fencing, HostsLook, Left, LookAtHosts, Missing
from activities.interfaces.servers import HostRef
from hostler.contract.errors import InvalidRequest
from hostler.contract.evacuation import evacuated
from hostler.contract.host_work import HOST_FAILURE, Alarm, HostFailureResult
from hostler.contract.names import host_failure_workflow_id
from hostler.settings import Settings
from models import Database, Host, Server
from scheduler.liveness import Alive

MISSES = 3
"""So many heartbeats may pass until a control worker that has just begun has heard of every host."""


class _Outcome(NamedTuple):
    """How dealing with a host's failure ended: why it came to nothing; whether the host turned out to be there."""

    reason: str = ""
    spared: bool = False


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
        called = [alarm.key for alarm in call.alarms]
        if settings.alarm_command:
            called = await alarms.have_called(self._temporal.client, settings.alarm_timeout, call.alarms)
        alive = self._alive()
        missing, left, heard = await asyncio.to_thread(self._seen, alive)
        under_way, ended, spared = [], {}, []
        asked = {*call.begun, *(host.id for host in missing), *(host.id for host in left)}
        asked |= await self._being_failed_over()
        for host_id in sorted(asked):
            outcome = await self._outcome(host_id)
            if outcome is None:
                under_way.append(host_id)
            elif host_id in call.begun:
                ended[host_id] = outcome.reason
                spared += [host_id] if outcome.spared else []
        return HostsLook(
            missing=missing,
            heard=heard,
            left=left,
            under_way=under_way,
            ended=ended,
            spared=spared,
            called=called,
            interval=settings.interval,
            silence=max(settings.silence, MISSES * self._settings.temporal.heartbeat_interval),
            max_hosts=settings.max_hosts,
            window=settings.window,
        )

    def _seen(self, alive: frozenset[str]) -> tuple[list[Missing], list[Left], int]:
        """Hosts that are not heard, those that are down for sure and not empty, and how many are heard.

        A host that is disabled is down on purpose. One without servers is missed all the same: where many are, it is
        not the hosts.
        """
        default = self._settings.host_failure.evacuate
        with self._database.read() as session:
            all_hosts = session.exec(select(Host).order_by(col(Host.name), col(Host.id))).all()
            silent = [host for host in all_hosts if host.enabled and host.id not in alive]
            servers = select(Server.host_id, Server.metadata_, Server.operation_id).where(
                col(Server.host_id).in_([host.id for host in silent]), col(Server.deleted_at).is_(None)
            )
            found = defaultdict[str, list[tuple[Mapping[str, str], str | None]]](list)
            for host_id, metadata, operation_id in session.exec(servers):
                found[str(host_id)].append((metadata, operation_id))
            policies = {host_id: metadata_of(session, host_id) for host_id in found}
        missing, left = [], []
        for host in silent:
            there = found[host.id]
            wanted = [by for metadata, by in there if evacuated(metadata, policies[host.id], default)]
            if host.down_since is None:
                missing.append(Missing(id=host.id, name=host.name, servers=len(there), wanted=len(wanted)))
            elif wanted:
                left.append(Left(id=host.id, name=host.name, wanted=len(wanted), free=wanted.count(None)))
        return missing, left, sum(host.id in alive for host in all_hosts)

    async def _being_failed_over(self) -> set[str]:
        """As of some moments ago."""
        query = f"WorkflowType = '{HOST_FAILURE}' AND ExecutionStatus = 'Running'"
        prefix = host_failure_workflow_id("")
        return {workflow_id.removeprefix(prefix) async for workflow_id in self._temporal.listed(query)}

    async def _outcome(self, host_id: str) -> "_Outcome | None":
        """None while the host's failure is being dealt with."""
        workflow_id = host_failure_workflow_id(host_id)
        handle = self._temporal.client.get_workflow_handle(workflow_id, result_type=HostFailureResult)
        try:
            if (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
                return None
            return _Outcome(spared=(await handle.result()).spared)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        except WorkflowFailureError as failure:
            cause = failure.cause
            return _Outcome(cause.message if isinstance(cause, FailureError) else str(cause))
        return _Outcome()

    @activity.defn(name="call_person")
    async def call_person(self, call: Alarm) -> None:
        settings = self._settings.host_failure
        if settings.alarm_command:
            await alarms.call(settings.alarm_command, settings.alarm_timeout, call)

    @activity.defn(name="host_answers")
    async def host_answers(self, call: HostRef) -> bool:
        return await self._temporal.answers(call)

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
        await asyncio.to_thread(self._check_name, call)
        await fence(settings.fence_command, settings.fence_timeout, call.name, call.id)
        return Fencing(registered_at=await asyncio.to_thread(self._registered_at, call))

    def _registered_at(self, call: HostRef) -> datetime | None:
        with self._database.read() as session:
            host = session.get(Host, call.id)
            return host.registered_at if host else None

    def _check_name(self, call: HostRef) -> None:
        """See that the command powers no other machine off: it goes by the name, which is only a label.

        Raises:
            InvalidRequest: it might.
        """
        if call.name.startswith("-"):
            raise _not_by_name(call, "the command would take its name for an option")
        with self._database.read() as session:
            hosts = {host.id: host for host in session.exec(select(Host))}
        own = hosts.pop(call.id, None)
        if own is None:
            return
        alive = self._alive()
        for host in hosts.values():
            same = host.name.casefold() == own.name.casefold() or (
                host.machine_id and host.machine_id == own.machine_id
            )
            if same and (host.id in alive or host.registered_at > own.registered_at):
                raise _not_by_name(call, f"host {host.id} has the same name or machine, and would be powered off")


def _not_by_name(call: HostRef, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"host {call.name} ({call.id}) is not fenced: {why}",
        field="host",
        value=call.id,
        remedy="see to it that the machine is off, if it is still there, and say so: "
        f"hostler host declare-down {call.id} --reason ..., or hostler host evacuate {call.id} --force",
    )
