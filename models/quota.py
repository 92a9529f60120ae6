"""Quotas: a project's limits, and what it uses, which is always derived and never counted by hand."""

from dataclasses import dataclass

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, col, func, select

from hostler.contract.resources import Quota as Limits
from hostler.contract.states import VmState
from models.base import Table
from models.server import Server
from models.volume import Volume

_DEFAULTS = Limits()


class Quota(Table, table=True):
    """A project's limits; -1 is no limit.

    Owner: the catalogue calls. Whoever adds to a project's use locks this row first (`lock_quota`).
    """

    project: str = Field(primary_key=True)
    servers: int = _DEFAULTS.servers
    vcpus: int = _DEFAULTS.vcpus
    ram_mib: int = _DEFAULTS.ram_mib
    volumes: int = _DEFAULTS.volumes
    volume_gib: int = _DEFAULTS.volume_gib


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """What a project uses now."""

    servers: int
    vcpus: int
    ram_mib: int
    volumes: int
    volume_gib: int


def lock_quota(session: Session, project: str) -> Quota:
    """The project's limits, locked until the transaction ends, so that two requests cannot share the last place.

    A project without limits of its own gets the defaults as a row: what does not exist cannot be locked.
    """
    statement = select(Quota).where(col(Quota.project) == project).with_for_update()
    quota = session.exec(statement).one_or_none()
    if quota is None:
        _insert_if_missing(session, project)
        quota = session.exec(statement).one()
    return quota


def _insert_if_missing(session: Session, project: str) -> None:
    """Two may find the row missing at once; the second one waits here for the first and then does nothing."""
    values = Quota(project=project).model_dump()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(postgresql.insert(Quota).values(values).on_conflict_do_nothing())
    else:
        session.execute(sqlite.insert(Quota).values(values).on_conflict_do_nothing())


def quota_use(session: Session, project: str) -> QuotaUse:
    """What the project's servers and volumes add up to.

    A server that is deleted, or that failed before it ever ran, holds nothing and counts for nothing.
    """
    failed = (col(Server.vm_state) == VmState.ERROR) & col(Server.launched_at).is_(None)
    servers, vcpus, ram_mib = session.exec(
        select(
            func.count(),
            func.coalesce(func.sum(Server.vcpus), 0),
            func.coalesce(func.sum(Server.ram_mib), 0),
        ).where(Server.project == project, col(Server.deleted_at).is_(None), ~failed)
    ).one()
    volumes, volume_gib = session.exec(
        select(func.count(), func.coalesce(func.sum(Volume.size_gib), 0)).where(Volume.project == project)
    ).one()
    return QuotaUse(servers=servers, vcpus=vcpus, ram_mib=ram_mib, volumes=volumes, volume_gib=volume_gib)
