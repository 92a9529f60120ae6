"""Server events: what was done to a server, step by step; it outlives Temporal's histories."""

from typing import Any

from sqlmodel import BigInteger, Field, Integer, UniqueConstraint

from hostler.contract.servers import OperationName
from models.base import Json, Table, Uuid, enumerated


class ServerEvent(Table, table=True):
    """A step of an operation, with its outcome. `step` is a contract `Step`; `position` its place in the run, from 0.

    Owner: the run `run_id`. Its steps have their places, so writing one twice is writing it once.
    """

    __table_args__ = (UniqueConstraint("server_id", "run_id", "position"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer(), "sqlite"))
    server_id: str = Field(sa_type=Uuid)
    run_id: str = Field(sa_type=Uuid)
    operation: OperationName = Field(sa_type=enumerated(OperationName))
    position: int
    step: dict[str, Any] = Field(sa_type=Json)
