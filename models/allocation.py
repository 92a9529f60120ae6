"""Allocations: what each server takes of a host, in the eyes of the scheduler."""

from datetime import datetime

from sqlalchemy import false
from sqlmodel import Field

from models.base import Table, UtcDateTime, Uuid, now


class Allocation(Table, table=True):
    """A server's part of a host. A host's use is the sum of these rows; there is no counter that could go wrong.

    A server that moved keeps its `former` one, on either host, until the move is confirmed or reverted.

    Owner: the operation that holds the server, through `scheduler.reservation`; a rebuild, which may change
    `disk_gib`, through `activities.control.room`.
    """

    server_id: str = Field(primary_key=True, foreign_key="server.id", sa_type=Uuid)
    host_id: str = Field(primary_key=True, foreign_key="host.id", index=True, sa_type=Uuid)
    former: bool = Field(default=False, primary_key=True, sa_column_kwargs={"server_default": false()})
    vcpus: int
    ram_mib: int
    disk_gib: int
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)
