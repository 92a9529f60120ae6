"""Since when which host is silent: what a watch remembers, and what follows. It is told the time."""

from datetime import datetime, timedelta

from activities.interfaces.host_watch import HostsLook
from hostler.contract.host_work import Alarm, AlarmKind, FailedHost, LeftOnHost, SilentHost, WatchState

GAP = timedelta(seconds=30)
"""Looks further apart than this, beside twice their interval, say nothing of the time between."""
FIRST, LONGEST = timedelta(minutes=2), timedelta(hours=1)
"""The pauses between two tries of what is left on a host that is down for sure."""
DEAF = (
    "no host is heard at all: it is rather we who are cut off, so nothing is evacuated. "
    "See whether it is the network, or Temporal; hostler host evacuate HOST evacuates one"
)


def note(state: WatchState, look: HostsLook, now: datetime) -> None:
    """Take in what a look has seen.

    A silence lasts as long as looks that follow each other closely see it. While nobody looked, be it that Temporal or
    the control workers were away, nobody could be heard: then all silences begin anew.
    """
    unseen = state.looked_at is None or now - state.looked_at > 2 * look.interval + GAP
    state.looked_at, state.interval, state.limit = now, look.interval, look.silence
    state.under_way = look.under_way
    state.failed = [host for host in state.failed if now - host.begun < look.window and host.id not in look.spared]
    known = {host.id: host for host in state.silent}
    state.silent = []
    for missing in look.missing:
        host = known.get(missing.id) or SilentHost(id=missing.id, name=missing.name, since=now)
        host.servers, host.wanted = missing.servers, missing.wanted
        if unseen and host.begun is None:
            host.since = now
        _follow(state, host, look, now)
        state.silent.append(host)
    _note_left(state, look, now)
    before, state.alarm = state.alarm, ""
    if any(_ripe(host, look, now, look.silence) for host in state.silent):
        lost = _lost(state, look, now)
        if look.heard == 0:
            state.alarm = DEAF
        elif len(lost) > look.max_hosts:
            state.alarm = _alarm(state, look, lost)
    if not (before and state.alarm):
        state.alarm_since = now if state.alarm else None
    _note_calls(state, look, now)


def due(state: WatchState, look: HostsLook, now: datetime) -> list[SilentHost]:
    """The hosts whose failure is to be dealt with now.

    Where one part of the hosts is cut off, they do not fall silent at the same moment: who is due waits for those that
    are not yet, though not for ever.
    """
    if state.alarm:
        return []
    undecided = any(now - host.since < look.silence and not host.stuck for host in state.silent)
    patience = look.silence * (2 if undecided else 1)
    return [host for host in state.silent if _ripe(host, look, now, patience)]


def begun(state: WatchState, host: SilentHost, now: datetime) -> None:
    """Its failure is dealt with. It counts as lost for a while from now on, whatever becomes of the host."""
    host.begun = now
    _forget(state, host)
    state.failed.append(FailedHost(id=host.id, name=host.name, begun=now))


def again(state: WatchState, look: HostsLook, now: datetime) -> list[LeftOnHost]:
    """The hosts that are down for sure whose servers are to be tried again now, as what found no room before."""
    if state.alarm or look.heard == 0:
        return []
    free = {host.id for host in look.left if host.free}
    return [
        host
        for host in state.left
        if host.id in free and host.id not in look.under_way and now - host.tried >= host.pause
    ]


def tried(host: LeftOnHost, now: datetime) -> None:
    """Its servers are tried again; the next time later."""
    host.times += 1
    host.tried, host.pause = now, min(2 * host.pause, LONGEST)


def _note_left(state: WatchState, look: HostsLook, now: datetime) -> None:
    known = {host.id: host for host in state.left}
    state.left = []
    for seen in look.left:
        host = known.get(seen.id) or LeftOnHost(id=seen.id, name=seen.name, wanted=0, tried=now, pause=FIRST)
        host.wanted = seen.wanted
        state.left.append(host)


def _note_calls(state: WatchState, look: HostsLook, now: datetime) -> None:
    """For what a person is to be called: once for what has begun with this look, and again where nobody was called."""
    missed = {one.key for one in state.calls} - {*look.called}
    state.calls = [one for one in _alarms(state) if one.since == now or one.key in missed]


def _alarms(state: WatchState) -> list[Alarm]:
    """Those that last, of which it is known since when."""
    found = []
    if state.alarm and state.alarm_since:
        found.append(Alarm(kind=AlarmKind.HOSTS_LOST, since=state.alarm_since, message=state.alarm))
    for host in state.silent:
        if host.stuck and host.stuck_since:
            message = f"host {host.name} is silent, and its servers are not evacuated: {host.stuck}"
            one = Alarm(kind=AlarmKind.HOST_STUCK, since=host.stuck_since, message=message)
            found.append(one.model_copy(update={"host_id": host.id, "host": host.name}))
    return found


def _ripe(host: SilentHost, look: HostsLook, now: datetime, patience: timedelta) -> bool:
    """Whether something is to be done about the host, and nobody does it."""
    nobody = host.begun is None and not host.stuck and host.id not in look.under_way
    return nobody and host.wanted > 0 and now - host.since >= patience


def _follow(state: WatchState, host: SilentHost, look: HostsLook, now: datetime) -> None:
    """What became of its failure. One that came to nothing, without being declared down, was heard: it begins anew."""
    if host.begun is not None and host.id in look.ended:
        host.begun, host.stuck, host.since = None, look.ended[host.id], now
        host.stuck_since = now if host.stuck else None
        _forget(state, host)


def _forget(state: WatchState, host: SilentHost) -> None:
    state.failed = [one for one in state.failed if one.id != host.id]


def _lost(state: WatchState, look: HostsLook, now: datetime) -> list[str]:
    """The hosts that are being failed over, or were of late, or have been silent for too long."""
    silent = {host.id: host.name for host in state.silent if now - host.since >= look.silence or host.stuck}
    once_more = {host.id for host in state.left if host.times}  # these are down for sure, and no longer a sign
    names = {host.id: host.name for host in state.failed} | silent
    of_late = {host.id for host in state.failed}
    return sorted(names.get(one, one) for one in {*silent, *look.under_way} - once_more | of_late)


def _alarm(state: WatchState, look: HostsLook, lost: list[str]) -> str:
    some = ", ".join(lost[:10]) + (", …" if len(lost) > 10 else "")
    when, cause = "at once", "the network"
    if state.failed:
        when, cause = f"within {look.window}", "the network, or what was evacuated that takes its hosts along"
    return (
        f"{len(lost)} hosts are lost {when} ({some}), and at most {look.max_hosts} may be: nothing is evacuated. "
        f"See whether it is rather {cause}; hostler host evacuate HOST evacuates one"
    )
