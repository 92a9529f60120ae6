"""The audit's activities: plan, look, heal."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.audit import healing, removing
from activities.control.audit.facts import read_facts
from activities.control.audit.images import judge_images
from activities.control.audit.records import LONG, OpenRun, judge_records, judge_runs
from activities.control.audit.servers import judge_servers
from activities.control.audit.storage import judge_storage
from activities.control.audit.suspecting import listed
from activities.control.find import find_host
from activities.control.temporal import Temporal
from activities.interfaces import audit as interface
from activities.interfaces.audit import (
    AuditPlan,
    Heal,
    JudgeHoldings,
    Look,
    LookAtHost,
    LookAtRecords,
    Suspicion,
    Treated,
    Treatment,
)
from activities.interfaces.servers import HostRef
from drivers.blocking import BlockingCalls
from drivers.image.base import ImageStore
from hostler.contract.audit import AuditRequest, FindingKind, NotAudited
from hostler.contract.errors import Unavailable
from hostler.contract.names import image_workflow_id, server_workflow_id, volume_workflow_id
from models import Database, Host, Server, Volume, now
from scheduler.liveness import Alive

T = TypeVar("T")

SERVER_PREFIX = server_workflow_id("")
OF_VOLUMES = {
    FindingKind.EXPORT,
    FindingKind.NO_EXPORT,
    FindingKind.NO_VOLUME_DATA,
    FindingKind.UNKNOWN_VOLUME,
    FindingKind.STUCK_VOLUME,
}
OF_IMAGES = {FindingKind.NO_IMAGE_DATA, FindingKind.UNKNOWN_IMAGE, FindingKind.STUCK_IMAGE}
LISTED, LEAST, MOST = 2000, 5, 50
"""So many suspicions in all; of one look at least and at most."""
INCOMPLETE = "a guest may use it: not every host was asked, or one has guests that the database does not know"


class Audit(interface.Audit):
    """Compares and heals."""

    def __init__(self, database: Database, store: ImageStore, alive: Alive, temporal: Temporal, heals: bool) -> None:
        """`heals`: whether an audit that was not told does."""
        self._database = database
        self._store = store
        self._store_calls = BlockingCalls("audit-images", 1)  # of a store that hangs, each retry would keep a thread
        self._alive = alive
        self._temporal = temporal
        self._heals = heals

    @activity.defn(name="plan_audit")
    def plan_audit(self, call: AuditRequest) -> AuditPlan:
        with self._database.read() as session:
            hosts = session.exec(select(Host).order_by(col(Host.name), col(Host.id))).all()
            if call.host is not None:
                hosts = [find_host(session, call.host)]
        alive = self._alive()
        up = [HostRef(id=host.id, name=host.name) for host in hosts if host.id in alive]
        down = [
            NotAudited(host_id=host.id, host=host.name, reason="it is down") for host in hosts if host.id not in alive
        ]
        return AuditPlan(
            heal=self._heals if call.heal is None else call.heal,
            hosts=up,
            not_audited=down,
            everything=call.host is None,
            limit=max(LEAST, min(MOST, LISTED // max(1, len(up)))),
        )

    # Looks.

    @activity.defn(name="look_at_host")
    async def look_at_host(self, call: LookAtHost) -> Look:
        try:
            holdings = await self._temporal.holdings(call.host)
        except Unavailable as error:
            return Look(not_audited=NotAudited(host_id=call.host.id, host=call.host.name, reason=str(error)))
        return await self.judge_holdings(JudgeHoldings(host=call.host, holdings=holdings, limit=call.limit))

    @activity.defn(name="judge_holdings")
    async def judge_holdings(self, call: JudgeHoldings) -> Look:
        host, holdings = call.host, call.holdings

        def judge(session: Session) -> tuple[list[Suspicion], bool]:
            facts = read_facts(session, host.id, holdings)
            suspicions = [*judge_servers(host, holdings, facts), *judge_storage(host, holdings, facts)]
            return suspicions, any(guest.server_id not in facts.servers for guest in holdings.guests)

        suspicions, strangers = await self._read(judge)
        idle = await self._idle(suspicions)
        kept = await asyncio.gather(*map(self._with_its_own_guest, idle))  # each may wait for another host
        return listed(kept, call.limit, strangers=strangers)

    @activity.defn(name="look_at_records")
    async def look_at_records(self, call: LookAtRecords) -> Look:
        stored, strays = await self._store_calls.run(lambda: (self._store.images(), self._store.strays()))

        def judge(session: Session) -> list[Suspicion]:
            return [*judge_records(session, self._alive()), *judge_images(session, stored, strays)]

        suspicions = await self._idle(await self._read(judge))
        runs = await self._long_runs()
        return listed([*suspicions, *await self._read(lambda s: list(judge_runs(s, runs)))], call.limit)

    async def _long_runs(self) -> list[OpenRun]:
        since = (now() - LONG).isoformat()
        query = f"ExecutionStatus = 'Running' AND WorkflowId STARTS_WITH '{SERVER_PREFIX}' AND StartTime < '{since}'"
        runs = await self._temporal.open_runs([one async for one in self._temporal.listed(query)])
        return [
            OpenRun(workflow_id.removeprefix(SERVER_PREFIX), run.run_id or "", run.workflow_type)
            for workflow_id, run in runs.items()
            if run.start_time < now() - LONG
        ]

    async def _idle(self, suspicions: list[Suspicion]) -> list[Suspicion]:
        """Those about things on which no workflow is at work."""
        about = [(one, _workflows(one)) for one in suspicions]
        running = await self._temporal.open_runs(workflow for _, workflows in about for workflow in workflows)
        return [one for one, workflows in about if not running.keys() & workflows]

    async def _with_its_own_guest(self, suspicion: Suspicion) -> Suspicion:
        """A server that lives elsewhere must have its guest there, or what is here may be the only one."""
        finding = suspicion.finding
        if finding.kind is not FindingKind.REMAINS or not finding.safe:
            return suspicion
        reason = await self._missing_elsewhere(suspicion)
        if not reason:
            return suspicion
        remedy = f"hostler server show {finding.server_id}; see deploy/runbooks/leaked-thing.md"
        changed = finding.model_copy(update={"safe": False, "reason": reason, "remedy": remedy})
        return suspicion.model_copy(update={"finding": changed})

    async def _missing_elsewhere(self, suspicion: Suspicion) -> str:
        """Why the server's guest is not known to be on its own host; nothing when it is, or when it is deleted."""

        def own_host(session: Session) -> HostRef | None:
            server = session.get(Server, suspicion.finding.server_id)
            host = session.get(Host, server.host_id) if server and server.host_id else None
            return HostRef(id=host.id, name=host.name) if host else None

        own = await self._read(own_host)
        if own is None:
            return ""
        if own.id not in self._alive():
            return f"whether its guest is on its own host is not known: {own.name} is down"
        try:
            holdings = await self._temporal.holdings(own)
        except Unavailable as error:
            return f"whether its guest is on its own host is not known: {error}"
        if suspicion.finding.server_id in {guest.server_id for guest in holdings.guests}:
            return ""
        return f"its own host, {own.name}, has no guest of it: what is here may be the only one"

    # What heals.

    @activity.defn(name="heal_finding")
    async def heal_finding(self, call: Heal) -> Treatment:
        suspicion, run_id = call.suspicion, call.run_id
        if not suspicion.finding.safe:
            return Treatment(reason=suspicion.finding.reason)
        if not await self._idle([suspicion]):
            return Treatment(reason="an operation has begun meanwhile")
        match suspicion.finding.kind:
            case FindingKind.POWER_STATE:
                reason = await self._write(partial(healing.follow_power, suspicion=suspicion, run_id=run_id))
            case FindingKind.LOST_OPERATION:
                reason = await self._write(partial(healing.give_back, suspicion=suspicion, run_id=run_id))
            case FindingKind.DELETED_SERVER:
                reason = await self._release_rows(call)
            case FindingKind.EXPORT if not call.complete:
                reason = INCOMPLETE
            case FindingKind.EXPORT:
                return await self._write(partial(removing.withdraw_export, suspicion=suspicion))
            case FindingKind.CACHED_IMAGE:
                return await self._write(partial(removing.evict_image, suspicion=suspicion))
            case FindingKind.REMAINS:
                return await self._remove(suspicion, run_id)
            case kind:
                reason = f"nothing heals {kind}"
        return Treatment(healed=not reason, reason=reason)

    async def _remove(self, suspicion: Suspicion, run_id: str) -> Treatment:
        treatment = await self._write(partial(removing.remove_remains, suspicion=suspicion, run_id=run_id))
        if treatment.holds and (reason := await self._missing_elsewhere(suspicion)):
            await self._write(partial(removing.finish, suspicion=suspicion, run_id=run_id, done=False))
            return Treatment(reason=reason)
        return treatment

    async def _release_rows(self, call: Heal) -> str:
        """Volumes are freed only where their data is, nobody can be using it, and it is no longer served."""
        server_id = call.suspicion.finding.server_id

        def keepers(session: Session) -> list[tuple[str, HostRef | None]]:
            query = select(Volume.id, Host).outerjoin(Host, col(Host.id) == Volume.host_id)
            found: Sequence[tuple[str, Host | None]] = session.exec(query.where(Volume.server_id == server_id)).all()
            return [
                (volume_id, HostRef(id=host.id, name=host.name) if host is not None else None)
                for volume_id, host in found
            ]

        for volume_id, host in await self._read(keepers):
            if not call.complete:
                return INCOMPLETE
            try:
                holdings = await self._temporal.holdings(host) if host else None
            except Unavailable as error:
                return str(error)
            if holdings is None or volume_id not in holdings.volumes:
                return f"there is no data of its volume {volume_id}"
            if volume_id in holdings.exports:
                return f"its volume {volume_id} is still served"
        return await self._write(partial(healing.release_rows, suspicion=call.suspicion))

    @activity.defn(name="finish_healing")
    def finish_healing(self, call: Treated) -> None:
        done = partial(removing.finish, suspicion=call.suspicion, run_id=call.run_id, done=call.done)
        self._database.run(done)

    # The database, from the event loop.

    async def _read(self, work: Callable[[Session], T]) -> T:
        def read() -> T:
            with self._database.read() as session:
                return work(session)

        return await asyncio.to_thread(read)

    async def _write(self, work: Callable[[Session], T]) -> T:
        return await asyncio.to_thread(self._database.run, work)


def _workflows(suspicion: Suspicion) -> set[str]:
    """The workflows that would explain it."""
    finding = suspicion.finding
    ids = {server_workflow_id(finding.server_id)} if finding.server_id else set()
    if finding.kind is FindingKind.UNKNOWN_SERVER:
        ids.add(server_workflow_id(finding.subject))
    if finding.kind in OF_VOLUMES:
        ids.add(volume_workflow_id(finding.subject))
    if finding.kind in OF_IMAGES:
        ids.add(image_workflow_id(finding.subject))
    return ids
