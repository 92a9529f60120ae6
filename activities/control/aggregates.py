"""What aggregates say of a host."""

from collections.abc import Mapping

from sqlmodel import Session, col, select

from models import Aggregate, AggregateHost


def metadata_of(session: Session, host_id: str) -> list[Mapping[str, str]]:
    """The metadata of the host's aggregates."""
    query = select(Aggregate.metadata_).join(AggregateHost, col(AggregateHost.aggregate_id) == Aggregate.id)
    return list(session.exec(query.where(AggregateHost.host_id == host_id)).all())
