"""Owed work: undo work of a host that could not be reached; done when it returns."""

from datetime import datetime
from typing import Any

from sqlmodel import Field

from models.base import Json, LongText, Table, UtcDateTime, Uuid, now


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
