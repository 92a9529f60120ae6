"""Aggregates: hosts that have something in common, which is said once, by metadata."""

from datetime import datetime

from sqlmodel import Field

from models.base import Json, Table, UtcDateTime, Uuid, now


class Aggregate(Table, table=True):
    """An aggregate. Its hosts are rows of `AggregateHost`.

    Owner: the calls of aggregates.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    name: str = Field(unique=True)
    metadata_: dict[str, str] = Field(
        default_factory=dict, sa_type=Json, sa_column_kwargs={"name": "metadata"}
    )  # `metadata` is SQLAlchemy's own
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)


class AggregateHost(Table, table=True):
    """A host is in an aggregate; it may be in several."""

    aggregate_id: str = Field(foreign_key="aggregate.id", primary_key=True, sa_type=Uuid)
    host_id: str = Field(foreign_key="host.id", primary_key=True, index=True, sa_type=Uuid)
