"""A picture of all hosts in memory, so that a choice among ten thousand reads next to nothing.

It may be old: only the reservation decides. It is brought up to date by asking for the hosts' generations, and reading
again those that changed.
"""

import threading
import time
from collections.abc import Iterable

from sqlmodel import Session, col, func, select

from models import Database, Host
from scheduler.host_state import HostState, read_states


class Snapshot:
    """All hosts as they were a moment ago; for any number of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states: dict[str, HostState] = {}
        self._as_of = float("-inf")
        self._refreshing = threading.Lock()
        self._changing = threading.Lock()

    def refresh(self, since: float) -> None:
        """See that the picture is no older than `since`, a moment of `time.monotonic`.

        Threads that ask at once share one reading: who had to wait takes the other's result, if that one began late
        enough.
        """
        if self._as_of >= since:
            return
        with self._refreshing:
            if self._as_of < since:
                self._refresh()

    def hosts(self) -> list[HostState]:
        """All hosts, in no order."""
        with self._changing:
            return list(self._states.values())

    def get(self, host_ids: Iterable[str]) -> list[HostState]:
        """The hosts named, as far as they are known, in that order."""
        with self._changing:
            return [self._states[host_id] for host_id in host_ids if host_id in self._states]

    def put(self, states: Iterable[HostState]) -> None:
        """Take over what somebody has read, unless we know better."""
        with self._changing:
            for state in states:
                held = self._states.get(state.id)
                if held is None or held.generation <= state.generation:
                    self._states[state.id] = state

    def _refresh(self) -> None:
        began = time.monotonic()
        with self._database.read() as session:
            if _totals(session) != self._totals():
                self._reread(session)
        self._as_of = began

    def _totals(self) -> tuple[int, int]:
        hosts = self.hosts()
        return len(hosts), sum(host.generation for host in hosts)

    def _reread(self, session: Session) -> None:
        generations: dict[str, int] = dict(session.exec(select(Host.id, Host.generation)).all())
        with self._changing:
            held = {state.id: state.generation for state in self._states.values()}
            for host_id in held.keys() - generations.keys():
                del self._states[host_id]
        changed = [host_id for host_id, generation in generations.items() if held.get(host_id, -1) < generation]
        # Past some point one long read is cheaper than many named ones.
        self.put(read_states(session, changed if len(changed) < len(generations) / 4 else None))


def _totals(session: Session) -> tuple[int, int]:
    """The number of hosts, and of all changes to them ever: by these two alone one knows that nothing has changed."""
    return session.exec(select(func.count(), func.coalesce(func.sum(col(Host.generation)), 0))).one()
