"""`client.aggregates`: hosts that have something in common, and what."""

from collections.abc import Mapping, Sequence
from uuid import uuid4

from hostler.client.catalogue import Namespace
from hostler.contract import calls
from hostler.contract.calls import AggregateMember, AggregateMetadata
from hostler.contract.resources import Aggregate
from hostler.contract.validation import check_aggregate


class Aggregates(Namespace):
    """Aggregates of hosts, the same for all projects, named by name or UUID.

    Metadata `hostler:evacuate` = "true" or "false" says whether a failure of a host evacuates its servers.
    """

    async def create(
        self, name: str, *, metadata: Mapping[str, str] | None = None, aggregate_id: str | None = None
    ) -> Aggregate:
        """Make an aggregate, without hosts."""
        aggregate = Aggregate(id=aggregate_id or str(uuid4()), name=name, metadata=dict(metadata or {}))
        check_aggregate(aggregate)
        return await self._connection.call(calls.CREATE_AGGREGATE, aggregate)

    async def list(self) -> Sequence[Aggregate]:
        """All aggregates."""
        return await self._connection.call(calls.LIST_AGGREGATES, calls.Nothing())

    async def show(self, aggregate: str) -> Aggregate:
        """One aggregate."""
        return await self._connection.call(calls.SHOW_AGGREGATE, self._ref(aggregate))

    async def delete(self, aggregate: str) -> None:
        """Delete an aggregate that has no hosts."""
        await self._connection.call(calls.DELETE_AGGREGATE, self._ref(aggregate))

    async def add_host(self, aggregate: str, host: str) -> Aggregate:
        """Put a host in."""
        return await self._connection.call(calls.ADD_AGGREGATE_HOST, AggregateMember(ref=aggregate, host=host))

    async def remove_host(self, aggregate: str, host: str) -> Aggregate:
        """Take a host out."""
        return await self._connection.call(calls.REMOVE_AGGREGATE_HOST, AggregateMember(ref=aggregate, host=host))

    async def set(self, aggregate: str, metadata: Mapping[str, str | None]) -> Aggregate:
        """Change the metadata that are given, and keep the others; None takes one away."""
        return await self._connection.call(
            calls.SET_AGGREGATE, AggregateMetadata(ref=aggregate, metadata=dict(metadata))
        )
