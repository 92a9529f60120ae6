"""The scheduler: chooses among all hosts, reserves on the one chosen, and says precisely why if none is left."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from sqlmodel import Session

from hostler.contract.errors import FilterReport, InvalidState, NoValidHost, Unavailable
from hostler.settings import SchedulerSettings
from models import Database, Migration
from scheduler.filters import all_filters, all_pass, explain
from scheduler.host_state import HostState, read_states
from scheduler.liveness import Alive
from scheduler.request import SchedulingRequest
from scheduler.reservation import held_host, lock_server, reserve
from scheduler.selection import Selection, select
from scheduler.snapshot import Snapshot

MAX_AGE = 1.0
"""Seconds that a picture of the hosts is good for."""

ROUNDS = 100
"""Choices that may be lost to others before we let somebody else have a try."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the server has its allocation, and (id, name) of the hosts to try next should this one fail it."""

    host_id: str
    host_name: str
    alternates: list[tuple[str, str]] = field(default_factory=list)


class Scheduler:
    """Finds hosts; one for the process, for any number of threads."""

    def __init__(
        self,
        database: Database,
        alive: Alive,
        settings: SchedulerSettings,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._alive = alive
        self._settings = settings
        self._rng = rng or random.Random()
        self._snapshot = Snapshot(database)

    def schedule(self, request: SchedulingRequest, alternates_hint: Iterable[str] = ()) -> Placement:
        """Reserve a host for the server: one of the hints (UUIDs, in order) if it still fits, else the best of all.

        Asked again it gives the same host, as long as the server has its allocation there and the host is not excluded.

        Raises:
            NoValidHost: no host fits; true at a moment after the call began.
            Unavailable: others were faster, again and again.
        """
        asked_at = time.monotonic()
        alive = self._alive()
        self._snapshot.refresh(asked_at - MAX_AGE)
        looked_again = False
        placement = self._placed_before(request) or self._try(self._still_fit(alternates_hint, request, alive), request)
        for _ in range(ROUNDS):
            if placement:
                return placement
            selection = self._select(request, alive)
            if selection.candidates:
                placement = self._try(selection.candidates, request)
            elif looked_again:
                raise no_valid_host(selection)
            else:  # never say no on the strength of an old picture
                self._snapshot.refresh(asked_at)
                looked_again = True
        raise Unavailable("other requests took every host that was chosen")

    def explain(self, request: SchedulingRequest) -> tuple[int, list[FilterReport]]:
        """How many hosts there are, and which filter removes which of them."""
        self._snapshot.refresh(time.monotonic())
        hosts = self._snapshot.hosts()
        return len(hosts), explain(hosts, all_filters(request, self._alive()))

    def _select(self, request: SchedulingRequest, alive: frozenset[str]) -> Selection:
        return select(
            self._snapshot.hosts(),
            request,
            alive=alive,
            spread=self._settings.spread,
            alternates=self._settings.alternates,
            rng=self._rng,
        )

    def _still_fit(self, host_ids: Iterable[str], request: SchedulingRequest, alive: frozenset[str]) -> list[HostState]:
        return list(filter(all_pass(all_filters(request, alive)), self._snapshot.get(host_ids)))

    def _placed_before(self, request: SchedulingRequest) -> Placement | None:
        """Where an earlier run of this step, whose answer was lost, put the server."""
        with self._database.read() as session:
            host_id = held_host(session, request)
            return None if host_id is None else _placement(read_states(session, [host_id])[0])

    def _try(self, candidates: list[HostState], request: SchedulingRequest) -> Placement | None:
        """Reserve on the first candidate that has the room; those after it are the alternates."""
        for position, candidate in enumerate(candidates, start=1):
            took, host = self._database.run(partial(_take, host_id=candidate.id, request=request))
            # Only now, after the commit: the picture must not show what was never true.
            self._snapshot.put([host])
            if took:
                return _placement(host, candidates[position:])
        return None


def _take(session: Session, host_id: str, request: SchedulingRequest) -> tuple[bool, HostState]:
    """Whether the server has a host now, and the state of that host, or of the one that had no room.

    A move that is made by the run has that host as its target from now on: should it fail, its row still says where to.
    """
    holder = lock_server(session, request.server_id)
    if request.run_id and holder != request.run_id:
        raise InvalidState(f"server {request.server_id} is no longer held by run {request.run_id}")
    move = session.get(Migration, request.run_id) if request.run_id else None
    held = held_host(session, request)
    took = held is not None or reserve(session, host_id, request)
    if took and move is not None:
        move.target_id = held or host_id
    return took, read_states(session, [held or host_id])[0]


def _placement(host: HostState, alternates: list[HostState] | None = None) -> Placement:
    return Placement(host.id, host.name, [(other.id, other.name) for other in alternates or []])


def no_valid_host(selection: Selection) -> NoValidHost:
    """The error that tells, filter by filter, what became of every host."""
    if not selection.considered:
        return NoValidHost("no host has registered yet", hosts_considered=0, remedy="start a host worker")
    why = "; ".join(f"{report.removed} {report.reason}" for report in selection.reports)
    return NoValidHost(
        f"no host can take the server. Of {selection.considered}: {why}",
        hosts_considered=selection.considered,
        filters=selection.reports,
        remedy="free or add capacity, or ask for less",
    )
