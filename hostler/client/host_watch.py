"""What the watch over the hosts knows, and what is done about those that it misses."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from hostler.client.connection import Connection
from hostler.client.errors import typed
from hostler.contract.errors import NotFound
from hostler.contract.host_work import (
    WATCH_HOSTS,
    HostFailures,
    LeftOnHost,
    SilentHost,
    WatchedHost,
    WatchedState,
    WatchState,
)

QUERY = "state"
LATE = timedelta(seconds=90)
"""A look may last a minute."""
ALARMED = "nothing, as long as there is an alarm"


class HostWatching:
    """The part of `client.hosts` that asks the watch."""

    _connection: Connection

    async def failures(self) -> HostFailures:
        """The hosts that fail, and what is done about each by itself.

        Raises:
            NotFound: nobody watches over the hosts, so nothing is.
        """
        handle = self._connection.temporal.get_workflow_handle(WATCH_HOSTS)
        with typed(self._connection.address):
            try:
                known = await handle.describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                raise _nobody_watches("it is switched off, or has never begun") from error
        status = known.status
        if status is WorkflowExecutionStatus.COMPLETED:
            raise _nobody_watches("it is switched off")
        if status is not WorkflowExecutionStatus.RUNNING:
            raise _nobody_watches(f"it was ended from outside ({status.name.lower() if status else 'unknown'})")
        query = handle.query(QUERY, result_type=WatchState)
        state: WatchState = await self._connection.answered(query)
        return failures_of(state, known.start_time, datetime.now(UTC))


def failures_of(state: WatchState, begun: datetime, now: datetime) -> HostFailures:
    """What follows from what the watch, whose run was `begun` then, knows."""
    says_how_often = state.looked_at is None or bool(state.interval)
    return HostFailures(
        looked_at=state.looked_at,
        late=says_how_often and now - (state.looked_at or begun) > 2 * state.interval + LATE,
        alarm=state.alarm,
        alarm_since=state.alarm_since,
        hosts=list(_hosts(state)),
    )


def _hosts(state: WatchState) -> Iterator[WatchedHost]:
    """Each host once: who is missed, who is down with servers left, who counts as lost though it is over."""
    yield from (_silent(state, host) for host in state.silent)
    yield from (_left(state, host) for host in state.left)
    told = {host.id for host in state.silent} | {host.id for host in state.left}
    for host in state.failed:
        if host.id in told:
            continue
        under_way = host.id in state.under_way
        yield WatchedHost(
            id=host.id,
            name=host.name,
            state=WatchedState.EVACUATING if under_way else WatchedState.COUNTS,
            since=host.begun,
            doing=_evacuates(host.name) if under_way else "its failure is over; it counts as lost for a while",
        )
    for host_id in sorted({*state.under_way} - told - {host.id for host in state.failed}):
        yield WatchedHost(id=host_id, name=host_id, state=WatchedState.EVACUATING, doing=_evacuates(host_id))


def _silent(state: WatchState, host: SilentHost) -> WatchedHost:
    seen = WatchedHost(
        id=host.id,
        name=host.name,
        state=WatchedState.SILENT,
        since=host.since,
        servers=host.servers,
        wanted=host.wanted,
        doing="",
    )
    if host.begun or host.id in state.under_way:
        since = host.begun or host.since
        changes = {"state": WatchedState.EVACUATING, "since": since, "doing": _evacuates(host.name)}
    elif host.stuck:
        changes = {"state": WatchedState.STUCK, "since": host.stuck_since or host.since, "doing": _stuck(host)}
    else:
        changes = {"doing": _waits(state, host)}
    return seen.model_copy(update=changes)


def _left(state: WatchState, host: LeftOnHost) -> WatchedHost:
    kind, doing = WatchedState.LEFT, ALARMED
    if host.id in state.under_way:
        kind, doing = WatchedState.EVACUATING, _evacuates(host.name)
    elif not state.alarm:
        next_try = host.tried + host.pause
        doing = f"it is down for sure; tried {host.times} times again, the next time after {next_try:%Y-%m-%d %H:%M:%S}"
    return WatchedHost(id=host.id, name=host.name, state=kind, since=host.tried, wanted=host.wanted, doing=doing)


def _waits(state: WatchState, host: SilentHost) -> str:
    if not host.servers:
        return "nothing: it has no servers"
    if not host.wanted:
        return "nothing: none of its servers is evacuated by itself; hostler host evacuate does it"
    if state.alarm:
        return ALARMED
    return f"waits whether it comes back, until {host.since + state.limit:%Y-%m-%d %H:%M:%S} or a little longer"


def _stuck(host: SilentHost) -> str:
    return f"nothing, until a person has seen to it: {host.stuck}"


def _evacuates(host: str) -> str:
    return f"is fenced and evacuated: hostler host evacuate {host} --status"


def _nobody_watches(why: str) -> NotFound:
    return NotFound(
        f"nobody watches over the hosts: {why}. No host is evacuated by itself, and nobody is called",
        field="host_failure.interval",
        remedy="see that it is not 0 on the control workers, and that one runs: it begins the watch within a minute",
    )
