"""Judges what is on no host: the database by itself, against the open workflows, and against who is up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlmodel import Session, col, exists, func, or_, select

from activities.control.audit.servers import lost_operation
from activities.control.audit.suspecting import remedy_without_host, suspect
from activities.interfaces.audit import Suspicion
from activities.interfaces.servers import HostRef
from hostler.contract.audit import FindingKind
from hostler.contract.resources import VolumeStatus
from hostler.contract.states import VmState, status
from models import BlockDevice, Host, OwedWork, Port, Server, Volume, now

LONG = timedelta(minutes=5)
"""After this, what is still under way is worth a word; also how long the audit itself may hold a server's row."""

HELD = or_(
    col(Server.operation_id).is_not(None),
    col(Server.task_state).is_not(None),
    col(Server.vm_state) == VmState.BUILDING,
)
"""Servers that `is_busy`."""


@dataclass(frozen=True)
class OpenRun:
    """A run that has been open for long."""

    server_id: str
    run_id: str
    operation: str


def judge_records(session: Session, alive: frozenset[str]) -> Iterator[Suspicion]:
    """Everything that neither a host nor Temporal need be asked for."""
    yield from _homeless(session)
    yield from _on_hosts_down(session, alive)
    yield from _of_deleted_servers(session)
    yield from _volumes(session)
    yield from _hosts(session, alive)


def _homeless(session: Session) -> Iterator[Suspicion]:
    """Servers on no host: held by a run, or what a build that failed still has."""
    query = select(Server).where(col(Server.deleted_at).is_(None), col(Server.host_id).is_(None))
    shelved = col(Server.vm_state) == VmState.SHELVED_OFFLOADED  # it keeps its addresses and volumes
    for server in session.exec(query.where(HELD)):
        yield lost_operation(server, None)
    has = or_(*(exists().where(col(kind.server_id) == Server.id) for kind in (Port, BlockDevice, Volume)))
    for server in session.exec(query.where(~HELD, ~shelved, has)):
        yield suspect(
            FindingKind.REMAINS,
            server.id,
            f"ports or disks of a server that is {status(server.vm_state, None)} on no host",
            "nothing",
            server=server,
            reason="a guest of it may be running",
            remedy=remedy_without_host(server),
        )


def _on_hosts_down(session: Session, alive: frozenset[str]) -> Iterator[Suspicion]:
    """Servers that a run holds on hosts that were declared down: nobody asks these what they have."""
    query = select(Server).join(Host, col(Host.id) == Server.host_id).where(HELD, col(Server.deleted_at).is_(None))
    for server in session.exec(query.where(col(Host.down_since).is_not(None))):
        if server.host_id not in alive:
            yield lost_operation(server, None)


def _of_deleted_servers(session: Session) -> Iterator[Suspicion]:
    has: dict[str, list[str]] = {}
    for what, kind in (("ports", Port), ("block devices", BlockDevice), ("volumes", Volume)):
        holders = select(kind.server_id).join(Server).where(col(Server.deleted_at).is_not(None)).distinct()
        for server_id in session.exec(holders):
            if server_id is not None:
                has.setdefault(server_id, []).append(what)
    for server_id, things in has.items():
        yield suspect(
            FindingKind.DELETED_SERVER,
            server_id,
            f"it is deleted, and has {', '.join(things)}",
            "nothing",
            server=session.get(Server, server_id),
            safe=True,
            remedy="hostler audit --heal",
        )


def _volumes(session: Session) -> Iterator[Suspicion]:
    under_way = col(Volume.status).in_([VolumeStatus.CREATING, VolumeStatus.DELETING])
    query = select(Volume, Server).outerjoin(Server, col(Server.id) == Volume.server_id).where(under_way)
    found: Sequence[tuple[Volume, Server | None]] = session.exec(query).all()
    for volume, server in found:
        if server is None or (server.operation_id is None and server.deleted_at is None):
            yield suspect(
                FindingKind.STUCK_VOLUME,
                volume.id,
                f"the volume is {volume.status}, and nothing works on it",
                "available, or not there",
                server=server,
                reason=f"{volume.status} may have got anywhere",
                remedy=f"hostler volume delete {volume.id}" if server is None else f"hostler server delete {server.id}",
            )


def _hosts(session: Session, alive: frozenset[str]) -> Iterator[Suspicion]:
    hosts = {host.id: HostRef(id=host.id, name=host.name) for host in session.exec(select(Host))}
    for host_id in sorted(alive - hosts.keys()):
        yield suspect(
            FindingKind.UNKNOWN_HOST,
            host_id,
            "a host worker that the database has never heard of",
            "registered",
            reason="only the host itself knows what it offers",
            remedy="restart that worker: hosts register when they start",
        )
    oldest = func.min(OwedWork.created_at)
    query = select(OwedWork.host_id, func.count()).group_by(col(OwedWork.host_id)).having(oldest < now() - LONG)
    for host_id, count in session.exec(query):
        if host_id in alive:
            yield suspect(
                FindingKind.OWED_WORK,
                host_id,
                f"it is up, and has owed {count} things for more than {LONG.seconds // 60} minutes",
                "nothing owed",
                host=hosts[host_id],
                reason="it is done by the host's registration, which is tried again and again",
                remedy=f"hostler host show {host_id}; temporal workflow describe --workflow-id host:{host_id}",
            )


def judge_runs(session: Session, runs: list[OpenRun]) -> Iterator[Suspicion]:
    """Runs that have been open for long under a server's ID, and do not hold the server's row."""
    for run in runs:
        server = session.get(Server, run.server_id)
        if server is None or server.operation_id != run.run_id:
            holder = "has no row" if server is None else f"is held by {server.operation_id or 'no run'}"
            yield suspect(
                FindingKind.UNKNOWN_OPERATION,
                run.run_id,
                f"{run.operation} runs, and its server {run.server_id} {holder}",
                "a server that is held by it",
                server=server,
                reason="it may only be waiting, and ends by itself",
                remedy=f"temporal workflow cancel --workflow-id server:{run.server_id}",
            )
