"""Owed work: undo work of a host that could not be reached; done when it returns."""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Field, Session, col, delete, select

from models.base import Json, LongText, Table, UtcDateTime, Uuid, now

START, DESTROY = "start_guest", "destroy_guest"


class OwedWork(Table, table=True):
    """An activity that the host must run before it may take servers again.

    Owner: the operation that gave up waiting writes it; the host's registration removes it once it is done.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    host_id: str = Field(foreign_key="host.id", index=True, sa_type=Uuid)
    server_id: str | None = Field(default=None, index=True, sa_type=Uuid)
    activity: str
    argument: dict[str, Any] = Field(sa_type=Json)
    reason: str = Field(sa_type=LongText)
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)


def enter_owed(session: Session, work: OwedWork) -> None:
    """Add it behind all that its host owes already, whatever the clocks of the control workers say.

    One work builds on the one before; but no guest is started that is to be removed: it may run elsewhere by now. The
    caller holds the host's row: see `bump_generation`.
    """
    if work.activity == DESTROY and work.server_id is not None:
        forget_start(session, work.server_id, work.host_id)
    places = select(OwedWork.created_at).where(OwedWork.host_id == work.host_id)
    last = session.exec(places.order_by(col(OwedWork.created_at).desc())).first()
    if last is not None:
        work.created_at = max(work.created_at, last + timedelta(microseconds=1))
    session.add(work)


def owes(session: Session, server_id: str, host_id: str, activity: str | None = None) -> bool:
    """Whether the host has yet to do this, or anything, to the server."""
    query = select(OwedWork.id).where(OwedWork.host_id == host_id, OwedWork.server_id == server_id)
    if activity is not None:
        query = query.where(OwedWork.activity == activity)
    return session.exec(query).first() is not None


def forget_start(session: Session, server_id: str, host_id: str) -> None:
    """The host no longer owes that the server's guest runs."""
    session.exec(
        delete(OwedWork).where(
            col(OwedWork.host_id) == host_id,
            col(OwedWork.server_id) == server_id,
            col(OwedWork.activity) == START,
        )
    )
